import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type SpawnSpec, systemClock } from "../../../../core/index.js";
import { findUser } from "../../../../plugins/kit/users.js";
import { createRunFolders } from "../../../../plugins/spawner-process/process/folders.js";
import { checkEnvironment } from "../../../../plugins/spawner-process/process/privileges.js";
import { createProcessSpawner } from "../../../../plugins/spawner-process/spawner.js";
import {
  cgroupPids,
  killCgroup,
  openCgroups,
  removeCgroup,
} from "../../../../plugins/spawner-process/tree/cgroup.js";
import { endLeftovers } from "../../../../plugins/spawner-process/tree/end-tree.js";
import { identify, isAlive } from "../../../../plugins/spawner-process/tree/identity.js";
import { reapOrphans } from "../../../../plugins/spawner-process/tree/orphans.js";

const ROOT = fileURLToPath(new URL("../../../..", import.meta.url));
const silent = { debug() {}, info() {}, warn() {}, error() {} };
const asRoot = process.getuid?.() === 0 && /^nobody:/m.test(readFileSync("/etc/passwd", "utf8"));
const noCgroups = {
  cgroups: undefined,
  native: undefined,
  punch: undefined,
  env: process.env,
  onProblem() {},
};

const LOGS = { maxSizeBytes: 2 ** 20, keep: 2, merge: false };

let home: string;
let shared: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "openstarry-faults-"));
  chmodSync(home, 0o711);
  shared = join(home, "shared");
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

function specOf(runId: string, more: Partial<SpawnSpec> = {}): SpawnSpec {
  return {
    agentId: "a",
    runId,
    templateId: "T",
    command: "/bin/sh",
    args: ["-c", "exit 0"],
    env: { OPENSTARRY_RUN_ID: runId },
    passEnv: [],
    envFiles: [],
    files: [{ env: "OPENSTARRY_TOKEN_FILE", name: "token", content: "secret" }],
    stop: { signal: "SIGTERM", graceMs: 100 },
    logs: LOGS,
    ...more,
  };
}

const spawnerOf = (more: object = {}) =>
  createProcessSpawner({
    clock: systemClock,
    log: silent,
    home,
    folders: createRunFolders(home, shared),
    ...noCgroups,
    ...more,
  });

/** Runs a module beside this one, as `command` starts it; answers the JSON that it prints. */
function probe(command: string[], source: string, env: Record<string, string> = {}): unknown {
  const plugin = join(ROOT, "plugins/spawner-process");
  const body = `const plugin = async (name) => {
      const module = await import("${plugin}/" + name + ".ts");
      return { ...module, ...module.default };
    };
    const { systemClock } = await plugin("../../core/index");
    const tell = (value) => { console.log(JSON.stringify(value)); process.exit(0); };
    const alive = setInterval(() => {}, 1e6);
    ${source}`;
  const node = [process.execPath, "--import", "jiti/register", "--input-type=module", "-e", body];
  const [file = "", ...args] = [...command, ...node];
  const run = spawnSync(file, args, { cwd: ROOT, encoding: "utf8", env: { ...process.env, ...env } });
  if (run.status !== 0) throw new Error(run.stderr);
  return JSON.parse(run.stdout);
}

test("without free descriptors nothing looks dead, and a run is over only when it could be looked at", () => {
  const seen = probe(
    ["sh", "-c", 'ulimit -n 120; exec "$@"', "sh"],
    `const { openSync, closeSync, mkdirSync, writeFileSync } = await import("node:fs");
    const { spawn } = await import("node:child_process");
    const { identify, isAlive, readStat, signalProcess } = await plugin("tree/identity");
    const { cgroupPids } = await plugin("tree/cgroup");
    const { members } = await plugin("tree/tree");
    const { createRunHandle } = await plugin("process/run-handle");
    const child = spawn("sleep", ["60"], { detached: true });
    const target = { ...identify(child.pid), folder: "${home}" };
    const complaints = [];
    const log = { error: (_, text) => complaints.push(text) };
    const code = (call) => { try { call(); return "answered"; } catch (error) { return error.code; } };
    const fds = [];
    try { for (;;) fds.push(openSync("/dev/null")); } catch {}
    const codes = [() => readStat(child.pid), () => isAlive(target), () => members({ runId: "r", main: target }),
      () => cgroupPids("${home}")].map(code);
    const signalled = signalProcess(target, 0);
    const run = createRunHandle({ runId: "r", target, clock: systemClock, log, statusFile: "${home}/status",
      outputTail: async () => undefined, stop: { signal: "SIGTERM", graceMs: 10 } });
    let over = false;
    void run.handle.exit.then(() => { over = true; });
    await new Promise((resolve) => setTimeout(resolve, 10));
    const early = over;
    for (const fd of fds) closeSync(fd);
    await run.handle.stop({ signal: "SIGKILL", graceMs: 10 });
    const { status } = await run.handle.exit;
    tell({ codes, signalled, early, status, complaints: complaints.length });`,
  );
  expect(seen).toEqual({
    codes: ["EMFILE", "EMFILE", "EMFILE", "EMFILE"],
    signalled: false,
    early: false,
    status: { kind: "lost" },
    complaints: 1,
  });
});

test("a group that is gone is empty; one without its list cannot be told", () => {
  expect(cgroupPids(join(home, "gone"))).toEqual([]);
  mkdirSync(join(home, "cgroup.procs"));
  expect(() => cgroupPids(home)).toThrow(/EISDIR/);
});

test("a boot goes on when what a run has left cannot be ended, and says so once", () => {
  // The shell is an ancestor of the daemon, which is never signalled, and carries the run's mark.
  const seen = probe(
    ["sh", "-c", '"$@"; exit $?', "sh"],
    `const { createProcessSpawner } = await plugin("spawner");
    const { createRunFolders } = await plugin("process/folders");
    const { bootId } = await plugin("tree/identity");
    const clock = { now: Date.now, monotonic: () => performance.now() * 20,
      after: (ms, callback) => systemClock.after(ms / 20, callback) };
    let errors = 0;
    const log = { debug() {}, info() {}, warn() {}, error() { errors++; } };
    const spawner = createProcessSpawner({ clock, log, home: "${home}", env: process.env,
      folders: createRunFolders("${home}", "${shared}") });
    const target = { pid: 2 ** 22 - 1, start_ticks: 0, boot_id: bootId(), folder: "" };
    const began = clock.monotonic();
    const stop = { signal: "SIGTERM", graceMs: 0 };
    const adopted = await spawner.adopt({ agentId: "a", runId: "R-hung", target, stop, logs: { keep: 1 } });
    const tookMs = clock.monotonic() - began;
    await new Promise((resolve) => clock.after(10_000, resolve));
    tell({ handle: adopted.handle !== undefined, late: tookMs > 4_900, errors });`,
    { OPENSTARRY_RUN_ID: "R-hung" },
  );
  expect(seen).toEqual({ handle: true, late: true, errors: 1 });
});

test("a daemon started by an agent is no part of its run, nor what the daemon started", () => {
  const seen = probe(
    [],
    `const { spawn } = await import("node:child_process");
    const { members } = await plugin("tree/tree");
    const { bootId, readStat } = await plugin("tree/identity");
    const other = spawn("sleep", ["60"], { env: { PATH: process.env.PATH } });
    const tagged = spawn("sleep", ["60"]);
    const found = members({ runId: "R-outer", main: { pid: 0, start_ticks: 0, boot_id: bootId() } });
    const has = (pid) => found.some((it) => it.pid === pid);
    const seen = { daemon: has(process.pid), other: has(other.pid), tagged: has(tagged.pid) };
    other.kill(); tagged.kill();
    tell(seen);`,
    { OPENSTARRY_RUN_ID: "R-outer" },
  );
  expect(seen).toEqual({ daemon: false, other: false, tagged: true });
});

test("a group that the daemon is in is never killed as a whole", () => {
  writeFileSync(join(home, "cgroup.procs"), `1\n${process.pid}\n`);
  expect(killCgroup(home)).toBe(false);
  expect(existsSync(join(home, "cgroup.kill"))).toBe(false);
});

test("variables that the loader or a shell obeys are refused for another user only", () => {
  const user = { name: "x", uid: 54_321, gid: 54_321, home: "/" };
  for (const name of [
    "LD_PRELOAD",
    "LD_AUDIT",
    "GCONV_PATH",
    "LOCPATH",
    "ENV",
    "BASH_ENV",
    "SHELLOPTS",
    "PS4",
  ]) {
    expect(() => checkEnvironment({ [name]: "v4lue" }, user)).toThrow(name);
    expect(() => checkEnvironment({ [name]: "v4lue" }, undefined)).not.toThrow();
  }
  expect(() => checkEnvironment({ PATH: "/x", HOME: "/", TMPDIR: "/tmp", LANG: "C" }, user)).not.toThrow();
});

test("the template's PATH does not decide which setsid runs", async () => {
  writeFileSync(join(home, "setsid"), `#!/bin/sh\necho >${home}/hijacked\n`, { mode: 0o755 });
  const run = await spawnerOf().spawn(
    specOf("R1", { env: { OPENSTARRY_RUN_ID: "R1", PATH: home }, args: ["-c", "exit 7"] }),
    async () => {},
  );
  expect((await run.exit).status).toEqual({ kind: "exited", code: 7 });
  expect(existsSync(join(home, "hijacked"))).toBe(false);
});

test("the agent's environment is its own, whatever its variables are called", async () => {
  const names = ["out", "err", "setsid", "files", "score", "p", "r", "go"];
  const env = Object.fromEntries(names.map((name) => [name, "mine"]));
  const file = join(home, "environment");
  const run = await spawnerOf().spawn(
    specOf("R1", {
      env: { OPENSTARRY_RUN_ID: "R1", ...env },
      args: ["-c", `tr '\\0' '\\n' </proc/self/environ >${file}`],
    }),
    async () => {},
  );
  await run.exit;
  const lines = readFileSync(file, "utf8").split("\n");
  expect(lines).toEqual(expect.arrayContaining(names.map((name) => `${name}=mine`)));
  expect(lines.filter((line) => line.startsWith("OPENSTARRY_HELD"))).toEqual([]);
});

test.runIf(asRoot)(
  "another user's agent has its folder, and the template's PATH names no setpriv",
  async () => {
    writeFileSync(join(home, "setpriv"), `#!/bin/sh\necho >${home}/hijacked\n`, { mode: 0o755 });
    const script = 'read -r token <"$OPENSTARRY_TOKEN_FILE"; [ "$token" = secret ] && [ -O . ] && exit 9';
    const run = await spawnerOf().spawn(
      specOf("R1", { user: "nobody", env: { OPENSTARRY_RUN_ID: "R1", PATH: home }, args: ["-c", script] }),
      async () => {},
    );
    // The token has no line end: read answers 1 and the variable is set all the same.
    expect((await run.exit).status).toEqual({ kind: "exited", code: 9 });
    expect(existsSync(join(home, "hijacked"))).toBe(false);
  },
);

test.runIf(asRoot)(
  "a folder becomes its user's after its files were written, and no link is followed",
  () => {
    const nobody = findUser("nobody");
    const folders = createRunFolders(home, shared);
    folders.make(specOf("R1"), nobody);
    const folder = folders.runFolder("a", "R1", nobody);
    expect(statSync(folder).uid).toBe(0);
    writeFileSync(join(home, "precious"), "");
    symlinkSync(join(home, "precious"), join(folder, "token"));
    expect(() => folders.fill(specOf("R1"), nobody)).toThrow(/EEXIST/);
    expect(statSync(join(home, "precious")).uid).toBe(0);
    rmSync(join(folder, "token"));
    folders.fill(specOf("R1"), nobody);
    expect([statSync(folder).uid, statSync(join(folder, "token")).uid]).toEqual([nobody.uid, nobody.uid]);
  },
);

test("folders of older runs below the shared folder go with the run, and those of no run at the boot", async () => {
  const folders = createRunFolders(home, shared);
  const runs = join(home, "agents/a/runs");
  mkdirSync(runs, { recursive: true });
  for (const runId of ["R1", "R2", "R3"]) {
    mkdirSync(join(shared, runId), { recursive: true });
    if (runId !== "R3") writeFileSync(join(runs, `${runId}.status`), "");
  }
  // A name that is no run's.
  writeFileSync(join(runs, ".hidden"), "");
  const left = () => ["R1", "R2", "R3"].filter((runId) => existsSync(join(shared, runId)));
  await folders.prune("a", "R2");
  expect(left()).toEqual(["R2", "R3"]);
  await folders.sweepShared(new Set(["R3"]));
  expect(left()).toEqual(["R2", "R3"]);
  await folders.sweepShared(new Set());
  expect(left()).toEqual(["R2"]);
  await folders.forget("a");
  expect(left()).toEqual([]);
});

test("what an agent left read-only is forgotten all the same", () => {
  const cache = join(home, "agents/a/runs/R1/cache");
  mkdirSync(cache, { recursive: true });
  writeFileSync(join(cache, "module"), "", { mode: 0o444 });
  chmodSync(cache, 0o555);
  if (asRoot) spawnSync("chown", ["-R", "nobody", home]);
  const seen = probe(
    asRoot ? ["setpriv", `--reuid=${findUser("nobody").uid}`, "--clear-groups", "--"] : [],
    `const { createRunFolders } = await plugin("process/folders");
    await createRunFolders("${home}", "${shared}").forget("a");
    tell("forgotten");`,
  );
  expect(seen).toBe("forgotten");
  expect(existsSync(join(home, "agents/a"))).toBe(false);
});

test("a group that the run could not join does not stay behind", async () => {
  const path = join(home, "group");
  const create = () => {
    // Cannot be written to: nobody joins.
    mkdirSync(join(path, "cgroup.procs"), { recursive: true });
    return path;
  };
  const cgroups = { create, runs: () => [], pathOf: () => path, isGroupOf: () => false, release() {} };
  let kept: boolean | undefined;
  const run = await spawnerOf({ cgroups }).spawn(specOf("R1"), async ({ containment }) => {
    kept = existsSync(path);
    expect(containment).toBe("best_effort");
  });
  await run.exit;
  expect(kept).toBe(false);
});

test.runIf(openCgroups(`faults-${process.pid}`))(
  "the folder of a home's groups goes when nobody is in it",
  async () => {
    const cgroups = openCgroups(`faults-${process.pid}`);
    const path = cgroups?.create("R1") ?? "";
    const child = spawn("sleep", ["60"]);
    const ended = new Promise((resolve) => child.once("exit", resolve));
    writeFileSync(join(path, "cgroup.procs"), String(child.pid));
    cgroups?.create("R2");
    cgroups?.release();
    expect([existsSync(path), existsSync(join(path, "..", "R2"))]).toEqual([true, false]);
    child.kill("SIGKILL");
    await ended;
    cgroups?.release();
    expect(existsSync(join(path, ".."))).toBe(false);
  },
);

const elsewhere = openCgroups(`faults-${process.pid}`);

test.runIf(elsewhere)(
  "a run whose groups a daemon started elsewhere made is contained as before",
  async () => {
    if (!elsewhere) return;
    const outer = join(elsewhere.base, `session-${process.pid}`);
    const folder = join(outer, basename(elsewhere.folder));
    const there = {
      ...elsewhere,
      create: (runId: string) => {
        mkdirSync(join(folder, runId), { recursive: true });
        return join(folder, runId);
      },
    };
    const run = await spawnerOf({ cgroups: there }).spawn(
      specOf("R1", { args: ["-c", "sleep 60"] }),
      async () => {},
    );
    const { target } = run;
    const take = async (recorded: unknown, runId = "R1") => {
      const spawner = spawnerOf({ cgroups: elsewhere });
      const stop = { signal: "SIGTERM", graceMs: 100 };
      const { handle } = await spawner.adopt({ agentId: "a", runId, target: recorded, stop, logs: LOGS });
      return { spawner, handle };
    };
    try {
      expect(run.containment).toBe("full");
      const taken = await take(target);
      expect(taken.handle?.containment).toBe("full");
      await taken.spawner.release();
      // A damaged record: of another run, of a group that it is not in, or by a detour.
      const cgroup = join(folder, "R1");
      for (const [wrong, runId] of [
        [cgroup, "R2"],
        [join(elsewhere.folder, "..", "other", basename(folder), "R1"), "R1"],
        [`${folder}/../${basename(folder)}/R1`, "R1"],
      ] as const) {
        const other = await take({ ...(target as object), cgroup: wrong }, runId);
        expect(other.handle?.containment).toBe("best_effort");
        await other.spawner.release();
      }
    } finally {
      await run.stop({ signal: "SIGKILL", graceMs: 0 });
      await run.exit;
      removeCgroup(outer);
      elsewhere.release();
    }
    expect(existsSync(outer)).toBe(false);
  },
);

test("the boot's sweep leaves the runs of agents without a record alone, and says whose they are", async () => {
  const env = {
    PATH: process.env.PATH,
    OPENSTARRY_HOME: home,
    OPENSTARRY_RUN_ID: "R1",
    OPENSTARRY_AGENT_ID: "q",
  };
  const child = spawn("sleep", ["60"], { env, detached: true });
  const ended = new Promise((resolve) => child.once("exit", (_, signal) => resolve(signal)));
  const identity = identify(child.pid ?? 0);
  const sweep = (known: [string, string | undefined][]) =>
    reapOrphans({
      live: new Set(),
      known: new Map(known),
      ownerOf: () => undefined,
      home,
      cgroups: undefined,
      remembered: new Map(),
      end: (tree) => endLeftovers(tree, systemClock, { signal: "SIGTERM", graceMs: 1_000 }),
      log: silent,
    });
  const left = [{ agentId: "q", pids: [child.pid] }];
  expect(await sweep([])).toEqual(left);
  // Of an agent that is known, but in a later run than the one that is.
  expect(await sweep([["q", "R0"]])).toEqual(left);
  expect(await sweep([["q", undefined]])).toEqual(left);
  expect(identity && isAlive(identity)).toBe(true);
  expect(await sweep([["q", "R1"]])).toEqual([]);
  expect(await ended).toBe("SIGTERM");
});

/** Somebody with the marks of a run of this home. */
function marked(env: Record<string, string>) {
  const child = spawn("sleep", ["60"], {
    env: { PATH: process.env.PATH, OPENSTARRY_HOME: home, ...env },
    detached: true,
    stdio: "ignore",
  });
  const ended = new Promise((resolve) => child.once("exit", (_, signal) => resolve(signal)));
  return { ended, kill: () => child.kill("SIGKILL") };
}

test("whose a leftover is, the disk knows better than its environment", async () => {
  const claims: Record<string, string>[] = [
    { OPENSTARRY_RUN_ID: "R1" },
    { OPENSTARRY_RUN_ID: "R1", OPENSTARRY_AGENT_ID: "" },
    { OPENSTARRY_RUN_ID: "R1", OPENSTARRY_AGENT_ID: "ghost" },
  ];
  const left = claims.map(marked);
  try {
    const strays = await reapOrphans({
      live: new Set(),
      known: new Map([["q", "R1"]]),
      ownerOf: (runId) => (runId === "R1" ? "q" : undefined),
      home,
      cgroups: undefined,
      remembered: new Map(),
      end: (tree) => endLeftovers(tree, systemClock, { signal: "SIGTERM", graceMs: 1_000 }),
      log: silent,
    });
    expect(strays).toEqual([]);
    expect(await Promise.all(left.map(({ ended }) => ended))).toEqual(claims.map(() => "SIGTERM"));
  } finally {
    for (const { kill } of left) kill();
  }
});

test("an agent that is discarded takes no other's run with it, nor one that goes on", async () => {
  for (const [agentId, runId] of [
    ["q", "RQ"],
    ["b", "RB"],
  ] as const) {
    mkdirSync(join(home, "agents", agentId, "runs"), { recursive: true });
    writeFileSync(join(home, "agents", agentId, "runs", `${runId}.status`), "");
  }
  const spawner = spawnerOf();
  const env = { OPENSTARRY_HOME: home, OPENSTARRY_RUN_ID: "RA", OPENSTARRY_AGENT_ID: "q" };
  const run = await spawner.spawn(
    specOf("RA", { agentId: "q", args: ["-c", "sleep 60"], env }),
    async () => {},
  );
  const quarantined = marked({ OPENSTARRY_RUN_ID: "RQ" });
  const others = marked({ OPENSTARRY_RUN_ID: "RB", OPENSTARRY_AGENT_ID: "q" });
  const isThere = () => {
    const identity = identify(run.pid ?? 0);
    return identity !== undefined && isAlive(identity);
  };
  try {
    expect(await spawner.discard?.("q")).toEqual({ survivors: [] });
    expect(await quarantined.ended).toBe("SIGTERM");
    expect(isThere()).toBe(true);
  } finally {
    others.kill();
    quarantined.kill();
    await run.stop({ signal: "SIGKILL", graceMs: 0 });
  }
  expect(await others.ended).toBe("SIGKILL");
});

test.runIf(asRoot)(
  "where no more processes are allowed, a start is put off and leaves nothing behind",
  () => {
    if (asRoot) spawnSync("chown", ["54321", home]);
    const seen = probe(
      ["setpriv", "--reuid=54321", "--clear-groups", "--"],
      `const { execFileSync } = await import("node:child_process");
    const { readdirSync } = await import("node:fs");
    const { createProcessSpawner } = await plugin("spawner");
    const { createRunFolders } = await plugin("process/folders");
    const { loadPosixSpawn } = await plugin("process/posix-spawn");
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const spawners = [loadPosixSpawn(), undefined].map((native) => createProcessSpawner({ clock: systemClock, log,
      home: "${home}", env: process.env, native, folders: createRunFolders("${home}", "${shared}") }));
    const spec = (runId) => ({ ...${JSON.stringify(specOf("R"))}, runId });
    execFileSync("prlimit", ["--pid", String(process.pid), "--nproc=1:4096"]);
    const errors = [];
    for (const [index, spawner] of spawners.entries())
      await spawner.spawn(spec("R" + index), async () => {}).catch((error) => errors.push([error.name, error.message]));
    tell({ errors, left: readdirSync("${home}/agents") });`,
    );
    const putOff = ["SpawnDeferred", "the system allows no more processes"];
    expect(seen).toEqual({ errors: [putOff, putOff], left: [] });
  },
);
