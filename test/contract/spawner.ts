import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RunHandle, RunIdentity, Spawner, SpawnSpec } from "../../core/index.js";
import { newRunId } from "./run-id.js";

export interface SpawnerSubject {
  readonly spawner: Spawner;
  /** Lets go of everything without ending it, as a daemon that is killed does. */
  release?(): void | Promise<void>;
}

export interface SpawnerSuite {
  /** Registers one test with whatever runner is used. */
  test: (name: string, body: () => Promise<void>) => void;
  /** A spawner on this home; called again with the same home, it is the next daemon's. */
  factory: (home: string) => SpawnerSubject | Promise<SpawnerSubject>;
}

const LOGS = { maxSizeBytes: 2 ** 20, keep: 2, merge: false };

/** What every run of the suite starts from: `script` is run by `/bin/sh -c`. */
function specOf(script: string, more: Partial<SpawnSpec> = {}): SpawnSpec {
  const runId = newRunId();
  return {
    agentId: "subject",
    runId,
    templateId: "Suite_v1",
    command: "/bin/sh",
    args: ["-c", script],
    env: { OPENSTARRY_AGENT_ID: "subject", OPENSTARRY_RUN_ID: runId, PLAIN: "value with spaces" },
    passEnv: [],
    envFiles: [],
    files: [
      { env: "OPENSTARRY_PARAMS_FILE", name: "params.json", content: '{"n":1}' },
      { env: "OPENSTARRY_RESULT_FILE", name: "result" },
    ],
    stop: { signal: "SIGTERM", graceMs: 2_000 },
    logs: LOGS,
    ...more,
  };
}

const accept = async () => {};

/**
 * The contract of a `Spawner`, for spawners that run programs which can see this machine's files.
 * A test's home is removed behind it.
 */
export function testSpawner(suite: SpawnerSuite): void {
  const { factory } = suite;
  const test: SpawnerSuite["test"] = (name, body) => suite.test(name, () => keptAlive(body));
  const withSubject = (name: string, body: (spawner: Spawner, home: string) => Promise<void>) =>
    test(`spawner: ${name}`, async () => {
      const home = await mkdtemp(join(tmpdir(), "openstarry-suite-"));
      const subject = await factory(home);
      try {
        await body(subject.spawner, home);
      } finally {
        await subject.spawner.forget?.("subject");
        await subject.release?.();
        await rm(home, { recursive: true, force: true });
      }
    });

  withSubject("tells how a run ended by itself", async (spawner) => {
    const ends: [string, object][] = [
      ["exit 0", { kind: "exited", code: 0 }],
      ["exit 7", { kind: "exited", code: 7 }],
      ["exit 128", { kind: "exited", code: 128 }],
      ["kill -SEGV $$", { kind: "signaled", signal: "SIGSEGV" }],
      ["kill -KILL $$", { kind: "signaled", signal: "SIGKILL" }],
    ];
    for (const [script, expected] of ends) {
      const run = await spawner.spawn(specOf(script), accept);
      const { status } = await run.exit;
      assert.deepEqual({ ...status, ...expected }, status, script);
    }
  });

  withSubject("names the agent's own process, and commits before it runs", async (spawner, home) => {
    const marker = join(home, "ran");
    let committed: RunIdentity | undefined;
    const run = await spawner.spawn(
      specOf(`echo $$ >${marker}.tmp; mv ${marker}.tmp ${marker}; sleep 60`),
      async (it) => {
        committed = it;
        // Long enough for a process that does not wait to be seen.
        await new Promise((resolve) => setTimeout(resolve, 50));
        assert.equal(existsSync(marker), false, "it ran before commit resolved");
      },
    );
    await until(() => existsSync(marker), "the agent to run");
    assert.deepEqual(JSON.parse(JSON.stringify(run.target)), run.target, "the target is JSON");
    assert.deepEqual(committed?.target, run.target);
    if (run.pid !== undefined) assert.equal(Number(await readFile(marker, "utf8")), run.pid);
    await run.stop({ signal: "SIGTERM", graceMs: 1_000 });
    await run.exit;
  });

  withSubject("never runs what was not committed", async (spawner, home) => {
    const marker = join(home, "ran");
    const refused = new Error("the journal is full");
    await assert.rejects(
      spawner.spawn(specOf(`touch ${marker}`), async () => {
        throw refused;
      }),
    );
    const after = await spawner.spawn(specOf("exit 0"), accept);
    await after.exit;
    assert.equal(existsSync(marker), false);
  });

  withSubject("refuses what cannot be started, before there is a process", async (spawner, home) => {
    await writeFile(join(home, "plain"), "#!/bin/sh\n", { mode: 0o600 });
    await writeFile(join(home, "lost"), "#!/no/such/interpreter\n", { mode: 0o700 });
    const bad: [Partial<SpawnSpec>, string][] = [
      [{ command: "/no/such/program" }, "command_not_found"],
      [{ command: "no-such-program-anywhere" }, "command_not_found"],
      [{ command: home }, "command_not_executable"],
      [{ command: join(home, "plain") }, "command_not_executable"],
      [{ command: join(home, "lost") }, "command_not_executable"],
      [{ cwd: join(home, "missing") }, "cwd_invalid"],
      [{ cwd: join(home, "plain") }, "cwd_invalid"],
      [{ passEnv: ["OPENSTARRY_SUITE_NOT_SET"] }, "env_missing"],
      [{ envFiles: [join(home, "missing.env")] }, "env_missing"],
      [{ user: "no-such-user-here" }, "user_invalid"],
    ];
    for (const [change, code] of bad) {
      const spec = specOf("exit 0", change);
      await assert.rejects(spawner.check(spec), (error: Error & { code?: string }) => {
        assert.equal(error.code, code);
        // The names of variables help; their values are nobody's business.
        assert.ok(
          !error.message.includes(process.env["PATH"] ?? "\0"),
          "it shows a value of the environment",
        );
        return true;
      });
      let committed = false;
      const spawned = spawner.spawn(spec, async () => {
        committed = true;
      });
      await assert.rejects(spawned, { code });
      assert.equal(committed, false);
    }
  });

  withSubject("gives it its environment and files, and nothing of its own", async (spawner) => {
    process.env["OPENSTARRY_SUITE_SECRET"] = "canary";
    process.env["OPENSTARRY_SUITE_PASSED"] = "passed";
    const script =
      'env; cat "$OPENSTARRY_PARAMS_FILE"; printf %s "$PLAIN" >"$OPENSTARRY_RESULT_FILE"; ls -l /proc/self/fd >&2';
    const passEnv = ["OPENSTARRY_SUITE_PASSED", "OPENSTARRY_SUITE_OPTIONAL?"];
    const run = await spawner.spawn(specOf(script, { passEnv, logs: { ...LOGS, merge: true } }), accept);
    const outcome = await run.exit;
    delete process.env["OPENSTARRY_SUITE_SECRET"];
    delete process.env["OPENSTARRY_SUITE_PASSED"];
    assert.deepEqual(outcome.status, { kind: "exited", code: 0 });
    assert.equal(outcome.result, "value with spaces");
    const text = outcome.outputTail ?? "";
    assert.match(text, /^PLAIN=value with spaces$/m);
    assert.match(text, /^OPENSTARRY_SUITE_PASSED=passed$/m);
    assert.match(text, /\{"n":1\}/);
    assert.doesNotMatch(text, /canary/);
  });

  withSubject("passes arguments as they are, to no shell", async (spawner) => {
    const args = ["$(touch pwned)", "`id`", "a b", "*", "--x=1", "", "é\n"];
    const spec = { ...specOf(""), command: "/bin/sh", args: ["-c", 'printf "[%s]" "$@"', "name", ...args] };
    const run = await spawner.spawn(spec, accept);
    const { outputTail } = await run.exit;
    assert.equal(
      outputTail,
      args
        .map((arg) => `[${arg}]`)
        .join("")
        .trimEnd(),
    );
  });

  withSubject("stops politely, and is as good as its word", async (spawner, home) => {
    const marker = join(home, "cleaned");
    const script = `trap 'touch ${marker}; exit 0' TERM; echo ready >${home}/ready; while :; do sleep 0.05; done`;
    const run = await spawner.spawn(specOf(script), accept);
    await until(() => existsSync(`${home}/ready`), "the agent to be ready");
    const [first, second] = await Promise.all([
      run.stop({ signal: "SIGTERM", graceMs: 5_000 }),
      run.stop({ signal: "SIGTERM", graceMs: 5_000 }),
    ]);
    assert.deepEqual([first.survivors, second.survivors], [[], []]);
    assert.deepEqual((await run.exit).status, { kind: "exited", code: 0 });
    assert.equal(existsSync(marker), true, "it could clean up");
    await run.stop({ signal: "SIGTERM", graceMs: 1_000 });
    await run.signal("SIGTERM");
  });

  withSubject("ends what ignores the stop signal, when the grace is over", async (spawner, home) => {
    const script = `trap '' TERM; echo ready >${home}/ready; while :; do sleep 0.05; done`;
    const run = await spawner.spawn(specOf(script), accept);
    await until(() => existsSync(`${home}/ready`), "the agent to be ready");
    const begun = performance.now();
    await run.stop({ signal: "SIGTERM", graceMs: 300 });
    assert.ok(performance.now() - begun >= 290, "it was given its grace");
    assert.equal((await run.exit).status.kind, "signaled");
  });

  withSubject("shortens the grace when asked again", async (spawner, home) => {
    const script = `trap '' TERM; echo ready >${home}/ready; while :; do sleep 0.05; done`;
    const run = await spawner.spawn(specOf(script), accept);
    await until(() => existsSync(`${home}/ready`), "the agent to be ready");
    const patient = run.stop({ signal: "SIGTERM", graceMs: 600_000 });
    await run.stop({ signal: "SIGKILL", graceMs: 0 });
    assert.deepEqual((await patient).survivors, []);
  });

  withSubject("ends the whole tree, when asked and when the agent ends by itself", async (spawner, home) => {
    const stray = `(trap '' TERM HUP; exec setsid sh -c 'trap "" TERM HUP; echo $$ >>${home}/strays; while :; do sleep 0.05; done') &`;
    const wait = `while [ "$(wc -l <${home}/strays 2>/dev/null || echo 0)" -lt 2 ]; do sleep 0.02; done;`;
    for (const ending of ["exit 3", "sleep 600"]) {
      await rm(`${home}/strays`, { force: true });
      const run = await spawner.spawn(
        specOf(`${stray} ${stray} ${wait} touch ${home}/grown; ${ending}`),
        accept,
      );
      await until(() => existsSync(`${home}/grown`), "the tree to grow");
      await rm(`${home}/grown`);
      if (ending !== "exit 3") await run.stop({ signal: "SIGTERM", graceMs: 200 });
      await run.exit;
      const strays = (await readFile(`${home}/strays`, "utf8")).trim().split("\n").map(Number);
      assert.equal(strays.length, 2);
      for (const pid of strays) assert.equal(isAlive(pid), false, `${pid} outlived its agent`);
    }
  });

  withSubject("names the processes of several runs at once, the agent's own first", async (spawner, home) => {
    if (!spawner.processes) return;
    const family = (name: string) => `(setsid sh -c 'echo $$ >${home}/${name}; exec sleep 600') & sleep 600`;
    const specs = ["a", "b"].map((name) => specOf(family(name)));
    const runs = await Promise.all(specs.map((spec) => spawner.spawn(spec, accept)));
    const told = (name: string) => existsSync(`${home}/${name}`) && readFileSync(`${home}/${name}`, "utf8");
    await until(() => ["a", "b"].every(told), "the children");
    const ids = specs.map(({ runId }) => runId);
    const found = await spawner.processes([...ids, "no-such-run"]);
    assert.deepEqual([...found.keys()].sort(), ids.toSorted());
    for (const [index, name] of ["a", "b"].entries()) {
      const refs = found.get(ids[index] ?? "") ?? [];
      assert.equal(refs[0]?.pid, runs[index]?.pid);
      const child = Number(told(name));
      assert.ok(refs.some(({ pid }) => pid === child));
      assert.ok(refs.every(({ start_ticks }) => start_ticks > 0));
    }
    await Promise.all(runs.map((run) => run.stop({ signal: "SIGTERM", graceMs: 2_000 })));
    assert.deepEqual((await spawner.processes(ids)).size, 0);
  });

  test("spawner: a later daemon adopts what lives, and learns how it ended", async () => {
    await adoption(factory);
  });

  test("spawner: a later daemon learns how a run ended while there was none", async () => {
    await endedMeanwhile(factory);
  });

  withSubject("does not touch a process that only has the number", async (spawner) => {
    if (!spawner.capabilities.adopt) return;
    const bystander = await spawner.spawn(specOf("sleep 60"), accept);
    const target = { ...(bystander.target as object), start_ticks: 1 };
    const { outcome, handle } = await spawner.adopt({
      agentId: "subject",
      runId: newRunId(),
      target,
      stop: { signal: "SIGTERM", graceMs: 100 },
      logs: LOGS,
    });
    assert.equal(handle, undefined);
    assert.equal(outcome?.status.kind, "lost");
    for (const bad of [
      undefined,
      null,
      {},
      { pid: 1 },
      { pid: 0 },
      { pid: -1 },
      { pid: process.pid },
      "7",
      7,
    ]) {
      const adopted = await spawner.adopt({
        agentId: "subject",
        runId: newRunId(),
        target: bad,
        stop: { signal: "SIGTERM", graceMs: 100 },
        logs: LOGS,
      });
      assert.equal(adopted.outcome?.status.kind, "lost");
    }
    assert.equal(isAlive(bystander.pid ?? 0), true, "the bystander was touched");
    await bystander.stop({ signal: "SIGKILL", graceMs: 0 });
  });

  withSubject("runs a command beside a run, as it runs", async (spawner, home) => {
    if (!spawner.exec) return;
    const spec = specOf("sleep 60", { cwd: home });
    const run = await spawner.spawn(spec, accept);
    const beside = (script: string, signal = new AbortController().signal) =>
      (spawner as Required<Spawner>).exec(spec, ["sh", "-c", script], signal);
    const passed = `test "$PLAIN" = "value with spaces" && test "$PWD" = ${home} && cat "$OPENSTARRY_PARAMS_FILE"`;
    assert.deepEqual(await beside(`${passed} >params`), { kind: "exited", code: 0 });
    assert.equal(await readFile(join(home, "params"), "utf8"), '{"n":1}');
    assert.deepEqual(await beside("exit 7"), { kind: "exited", code: 7 });
    assert.deepEqual(await beside("kill -KILL $$"), { kind: "signaled", signal: "SIGKILL" });
    const missing = await spawner.exec(spec, ["no-such-command"], new AbortController().signal);
    assert.deepEqual(missing, { kind: "exited", code: 127 });
    await run.stop({ signal: "SIGKILL", graceMs: 0 });
    await assert.rejects(beside("exit 0"));
  });

  withSubject("kills a command beside a run, with what it has started", async (spawner, home) => {
    if (!spawner.exec) return;
    const spec = specOf("sleep 60", { cwd: home });
    const run = await spawner.spawn(spec, accept);
    const stop = new AbortController();
    const script = "sleep 60 & echo $! >pids; echo $$ >>pids; mv pids all; wait";
    const ended = spawner.exec(spec, ["sh", "-c", script], stop.signal);
    await until(() => existsSync(join(home, "all")), "the command to run");
    const pids = (await readFile(join(home, "all"), "utf8")).trim().split("\n").map(Number);
    stop.abort();
    assert.deepEqual(await ended, { kind: "signaled", signal: "SIGKILL" });
    await until(() => !pids.some(isAlive), "the command and its child to be gone");
    assert.equal(isAlive(run.pid ?? 0), true, "the agent was killed with it");
    await run.stop({ signal: "SIGKILL", graceMs: 0 });
  });

  withSubject("hands out the output, line by line", async (spawner) => {
    if (!spawner.logs) return;
    const run = await spawner.spawn(
      specOf('i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo "line $i"; done; printf end'),
      accept,
    );
    await run.exit;
    const all = await collect(spawner.logs("subject", {}));
    assert.deepEqual(all, [...Array.from({ length: 50 }, (_, index) => `line ${index + 1}`), "end"]);
    assert.deepEqual(await collect(spawner.logs("subject", { tail: 2 })), ["line 50", "end"]);
    const lines = [];
    for await (const line of spawner.logs("subject", { tail: 10 })) lines.push(line);
    const resumed = await collect(spawner.logs("subject", { cursor: lines[4]?.cursor ?? "" }));
    assert.deepEqual(resumed, ["line 47", "line 48", "line 49", "line 50", "end"]);
  });
}

/**
 * A spawner's processes and timers need not keep the daemon alive, and a runner such as node:test gives
 * a test up when nothing else does.
 */
async function keptAlive(body: () => Promise<void>): Promise<void> {
  const timer = setInterval(() => {}, 60_000);
  try {
    await body();
  } finally {
    clearInterval(timer);
  }
}

async function adoption(factory: SpawnerSuite["factory"]): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), "openstarry-suite-"));
  const first = await factory(home);
  if (!first.spawner.capabilities.adopt) return;
  const spec = specOf("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done");
  const run = await first.spawner.spawn(spec, accept);
  const target = JSON.parse(JSON.stringify(run.target));
  await first.release?.();
  const second = await factory(home);
  const { agentId, runId, stop } = spec;
  const { handle } = await second.spawner.adopt({ agentId, runId, target, stop, logs: LOGS });
  assert.ok(handle, "it lives, and was not adopted");
  assert.equal(handle.pid, run.pid);
  await until(async () => (await tail(second.spawner)) === "up", "the agent to be up");
  const beside = await second.spawner.exec?.(
    spec,
    ["sh", "-c", 'test "$PLAIN"'],
    new AbortController().signal,
  );
  if (beside) assert.deepEqual(beside, { kind: "exited", code: 0 });
  await handle.stop(stop);
  assert.deepEqual((await handle.exit).status, { kind: "exited", code: 9 });
  await second.spawner.forget?.("subject");
  await second.release?.();
  await rm(home, { recursive: true, force: true });
}

async function endedMeanwhile(factory: SpawnerSuite["factory"]): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), "openstarry-suite-"));
  const first = await factory(home);
  if (!first.spawner.capabilities.adopt) return;
  const gate = join(home, "gate");
  const spec = specOf(`while [ ! -e ${gate} ]; do sleep 0.02; done; echo bye; exit 5`);
  const run: RunHandle = await first.spawner.spawn(spec, accept);
  const target = JSON.parse(JSON.stringify(run.target));
  await first.release?.();
  await writeFile(gate, "");
  await until(() => !isAlive(run.pid ?? 0), "the agent to end");
  const second = await factory(home);
  const { agentId, runId, stop } = spec;
  const { handle, outcome } = await second.spawner.adopt({ agentId, runId, target, stop, logs: LOGS });
  assert.equal(handle, undefined);
  assert.deepEqual(outcome?.status, { kind: "exited", code: 5 });
  assert.equal(outcome?.outputTail, "bye");
  await second.spawner.forget?.("subject");
  await second.release?.();
  await rm(home, { recursive: true, force: true });
}

async function tail(spawner: Spawner): Promise<string | undefined> {
  if (!spawner.logs) return "up";
  return (await collect(spawner.logs("subject", { tail: 1 })))[0];
}

async function collect(lines: AsyncIterable<{ bytes: Uint8Array }>): Promise<string[]> {
  const texts: string[] = [];
  for await (const { bytes } of lines) texts.push(Buffer.from(bytes).toString("utf8"));
  return texts;
}

/** A zombie is not alive: it only waits for its parent to look. */
function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat.charAt(stat.lastIndexOf(")") + 2) !== "Z";
  } catch {
    return false;
  }
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited 20 s in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
