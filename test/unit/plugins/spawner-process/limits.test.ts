import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { getPriority, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type LimitReport,
  type OsLimits,
  type RunHandle,
  type SpawnSpec,
  systemClock,
} from "../../../../core/index.js";
import { enable, openControllers } from "../../../../plugins/spawner-process/limits/controllers.js";
import { createLimitGroups, type LimitGroups } from "../../../../plugins/spawner-process/limits/limits.js";
import { oomScoreOfAgents, protectDaemon } from "../../../../plugins/spawner-process/limits/oom-score.js";
import { createRunLimits } from "../../../../plugins/spawner-process/limits/run-limits.js";
import { createRunFolders } from "../../../../plugins/spawner-process/process/folders.js";
import { createProcessSpawner, type ProcessSpawner } from "../../../../plugins/spawner-process/spawner.js";
import { openCgroups } from "../../../../plugins/spawner-process/tree/cgroup.js";
import { newRunId } from "../../../contract/run-id.js";
import { fixtureAgent } from "../../../helpers/agents.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { allProcesses, environOf, seeProcess } from "../../../helpers/processes.js";
import { waitFor } from "../../../helpers/wait-for.js";

const silent = { debug() {}, info() {}, warn() {}, error() {} };
const asRoot = process.getuid?.() === 0 && /^nobody:/m.test(readFileSync("/etc/passwd", "utf8"));
const TAG = `limits-unit-${process.pid}`;
const controllers = openControllers(TAG, openCgroups(TAG));
openCgroups(TAG)?.release();
const complete = controllers.size === 3;
if (!complete)
  console.log(`only these controllers can be tried here: ${[...controllers.keys()].join() || "none"}`);

let home: string;
/** Another one for each test: what carries the id of a run is ended with it. */
let runId: string;
const spawners: ProcessSpawner[] = [];
const runs: RunHandle[] = [];
beforeEach(() => {
  runId = newRunId();
  home = mkdtempSync(join(tmpdir(), "openstarry-limits-"));
  chmodSync(home, 0o711);
});
afterEach(async () => {
  for (const run of runs.splice(0)) {
    await run.stop({ signal: "SIGKILL", graceMs: 0 });
    await run.exit;
  }
  for (const spawner of spawners.splice(0)) spawner.release();
  rmSync(home, { recursive: true, force: true });
});

const LOGS = { maxSizeBytes: 2 ** 20, keep: 2, merge: false };

function spawnerOf(limits: LimitGroups | undefined): ProcessSpawner {
  const spawner = createProcessSpawner({
    clock: systemClock,
    log: silent,
    home,
    folders: createRunFolders(home, join(home, "shared")),
    cgroups: limits && openCgroups(TAG),
    limits,
    native: undefined,
    punch: undefined,
    env: process.env,
    onProblem() {},
  });
  spawners.push(spawner);
  return spawner;
}
const byGroups = () => spawnerOf(createLimitGroups(openControllers(TAG, openCgroups(TAG))));

function specOf(agent: { command: string; args: string[] }, limits?: OsLimits): SpawnSpec {
  return {
    agentId: "a",
    runId,
    templateId: "T",
    ...agent,
    env: { OPENSTARRY_RUN_ID: runId, OPENSTARRY_HOME: home },
    passEnv: [],
    envFiles: [],
    files: [],
    stop: { signal: "SIGTERM", graceMs: 500 },
    logs: LOGS,
    ...(limits ? { limits } : {}),
  };
}
const sh = (script: string) => ({ command: "/bin/sh", args: ["-c", script] });

async function start(spawner: ProcessSpawner, spec: SpawnSpec): Promise<RunHandle> {
  const run = await spawner.spawn(spec, async () => {});
  runs.push(run);
  return run;
}

/** As a daemon that comes after one that was killed. */
async function adopt({ target }: RunHandle): Promise<RunHandle | undefined> {
  for (const spawner of spawners.splice(0)) spawner.release();
  const stop = { signal: "SIGTERM", graceMs: 500 };
  const recorded = JSON.parse(JSON.stringify(target));
  const { handle } = await byGroups().adopt({ agentId: "a", runId, target: recorded, stop, logs: LOGS });
  if (handle) runs.splice(0, runs.length, handle);
  return handle;
}

const fileOf = (controller: "cpu" | "memory" | "pids", file: string) =>
  join(String(controllers.get(controller)?.folder), runId, file);
const groupsOf = () =>
  [...controllers.values()].map(({ folder }) => join(folder, runId)).filter((group) => existsSync(group));
/** Of 100 000 µs. */
function quotaOf(): number {
  const [one, two] = [fileOf("cpu", "cpu.max"), fileOf("cpu", "cpu.cfs_quota_us")];
  return Number.parseInt(readFileSync(existsSync(one) ? one : two, "utf8"), 10);
}

describe.runIf(complete)("by cgroups", () => {
  test("what is held is told, also by the next daemon; the groups go with the run", async () => {
    const limits = { memoryBytes: 2 ** 28, cpuPercent: 50, pids: 20, openFiles: 64 };
    const run = await start(byGroups(), specOf(sh("exec sleep 1000"), limits));
    expect(run.held).toEqual(limits);
    expect(groupsOf().length).toBeGreaterThan(0);
    const adopted = await adopt(run);
    expect(adopted?.held).toEqual(limits);
    await adopted?.stop({ signal: "SIGTERM", graceMs: 500 });
    expect(groupsOf()).toEqual([]);
  });

  test("a run without limits has no groups for them", async () => {
    const run = await start(byGroups(), specOf(sh("exec sleep 1000")));
    expect(run.held).toEqual({});
    for (const { version, folder } of controllers.values())
      if (version === 1) expect(existsSync(join(folder, runId))).toBe(false);
  });

  test("a run slowed down stays so over the daemon's death, and gets back what its limit allows", async () => {
    const run = await start(byGroups(), specOf(fixtureAgent("burns-cpu.sh"), { cpuPercent: 50 }));
    expect(quotaOf()).toBe(50_000);
    expect(await run.throttle?.(20)).toBe("quota");
    expect(quotaOf()).toBe(20_000);
    const adopted = await adopt(run);
    expect([quotaOf(), adopted?.held]).toEqual([20_000, { cpuPercent: 50 }]);
    // No more than the limit.
    await adopted?.throttle?.(90);
    expect(quotaOf()).toBe(50_000);
    expect(await adopted?.throttle?.(undefined)).toBeUndefined();
    expect(quotaOf()).toBe(50_000);
  });

  test("slowing down takes in a whole tree that began without a limit, and lets it go again", async () => {
    const script = "sleep 1000 & setsid sleep 1000 & while :; do :; done";
    const run = await start(byGroups(), specOf(sh(script)));
    const mine = () =>
      allProcesses()
        .filter(
          ({ pid, command }) => environOf(pid)["OPENSTARRY_RUN_ID"] === runId && !command.includes("shim"),
        )
        .map(({ pid }) => pid);
    await waitFor(() => mine().length === 3, { what: "its children" });
    expect(await run.throttle?.(30)).toBe("quota");
    const inside = readFileSync(fileOf("cpu", "cgroup.procs"), "utf8").trim().split("\n").map(Number);
    expect(inside).toEqual(expect.arrayContaining(mine()));
    expect(quotaOf()).toBe(30_000);
    await run.throttle?.(undefined);
    // None, in the words of either version.
    expect([-1, Number.NaN]).toContain(quotaOf());
    await run.stop({ signal: "SIGKILL", graceMs: 0 });
    await run.exit;
    expect(groupsOf()).toEqual([]);
  });

  test("a child that the kernel killed is told, and is not the reason of a later end", async () => {
    const leak = fixtureAgent("takes-memory.mjs", "1000");
    const run = await start(
      byGroups(),
      specOf(sh(`${leak.command} ${leak.args.join(" ")}; exec sleep 1000`), {
        memoryBytes: 150 * 2 ** 20,
      }),
    );
    if (controllers.get("memory")?.version === 2) return;
    const report = await new Promise<LimitReport>((resolve) => run.onLimit?.(resolve));
    expect(report).toMatchObject({ limit: "memory_max", action: "kill", value: 150 * 2 ** 20 });
    process.kill(run.pid ?? 0, "SIGKILL");
    expect(await run.exit).toMatchObject({ status: { kind: "signaled", signal: "SIGKILL" } });
    const { cause, note } = await run.exit;
    expect([cause, note]).toEqual([undefined, undefined]);
  });

  test("a kill by somebody else is not taken for want of memory", async () => {
    const run = await start(byGroups(), specOf(sh("exec sleep 1000"), { memoryBytes: 2 ** 28 }));
    process.kill(run.pid ?? 0, "SIGKILL");
    expect((await run.exit).cause).toBeUndefined();
  });

  test("who runs out of memory while it is being stopped was stopped, with a note", async () => {
    const script = `trap '' TERM; : >${home}/up; while [ ! -e ${home}/go ]; do sleep 0.02; done; exec ${process.execPath} -e 'process.on("SIGTERM",()=>{}); const h=[]; for(;;) h.push(Buffer.alloc(2**23,1))'`;
    const run = await start(byGroups(), specOf(sh(script), { memoryBytes: 150 * 2 ** 20 }));
    await waitFor(() => existsSync(join(home, "up")), { what: "the agent" });
    const stopped = run.stop({ signal: "SIGTERM", graceMs: 20_000 });
    writeFileSync(join(home, "go"), "");
    await stopped;
    const { cause, note } = await run.exit;
    expect(cause).toBeUndefined();
    expect(note).toMatch(/^the kernel killed \d of its processes for want of memory \(memory_max 150MiB/);
  });

  test("a start that is taken back leaves no group; nor does what ended while nobody lived", async () => {
    const limits = { memoryBytes: 2 ** 28, pids: 20 };
    const refused = new Error("not journaled");
    const spawning = byGroups().spawn(specOf(sh("exit 0"), limits), async () => {
      throw refused;
    });
    await expect(spawning).rejects.toThrow();
    await waitFor(() => groupsOf().length === 0, { what: "its groups to go" });
    runId = newRunId();
    const run = await start(byGroups(), specOf(sh("exec sleep 1000"), limits));
    for (const spawner of spawners.splice(0)) spawner.release();
    process.kill(run.pid ?? 0, "SIGKILL");
    await waitFor(() => !seeProcess(run.pid ?? 0), { what: "its end" });
    expect(groupsOf().length).toBeGreaterThan(0);
    await byGroups().reapOrphans?.(new Set(), new Map([["a", runId]]));
    expect(groupsOf()).toEqual([]);
    runs.splice(0);
  });
});

describe("without cgroups", () => {
  test("files are limited all the same; memory, CPU and processes are not said to be", async () => {
    const limits = { memoryBytes: 2 ** 28, cpuPercent: 50, pids: 20, openFiles: 64 };
    const run = await start(spawnerOf(undefined), specOf(sh("ulimit -n; ulimit -Hn"), limits));
    expect(run.held).toEqual({ openFiles: 64 });
    expect((await run.exit).outputTail).toBe("64\n64");
  });

  test("a limit higher than the daemon's own is told as what holds", async () => {
    const hard = Number(/^Max open files +\S+ +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1]);
    const run = await start(spawnerOf(undefined), specOf(sh("ulimit -Hn"), { openFiles: hard + 1_000 }));
    const { outputTail } = await run.exit;
    expect(run.held).toEqual({ openFiles: Number(outputTail) });
  });

  test("slowing down is giving way: the whole tree, every thread", async () => {
    const agent = { command: process.execPath, args: ["-e", "setInterval(()=>{},1000)"] };
    const run = await start(spawnerOf(undefined), specOf(agent));
    const threads = () => readdirSync(`/proc/${run.pid}/task`).map(Number);
    await waitFor(() => threads().length > 4, { what: "its threads" });
    expect(await run.throttle?.(20)).toBe("nice");
    expect(new Set(threads().map((id) => getPriority(id)))).toEqual(new Set([19]));
    const given = await run.throttle?.(undefined);
    // Only root may take it back, and says so.
    expect(given).toBe(process.getuid?.() === 0 ? undefined : "nice");
    if (given === undefined) expect(getPriority(run.pid)).toBe(0);
  });

  test.runIf(asRoot)("processes of an agent with a user of its own are limited for that user", async () => {
    const spec = { ...specOf(fixtureAgent("forks.sh", "300"), { pids: 30 }), user: "nobody" };
    chmodSync(home, 0o755);
    const run = await start(spawnerOf(undefined), {
      ...spec,
      ...sh(`i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done`),
    });
    expect(run.held).toEqual({ pids: 30 });
    expect((await run.exit).outputTail).toMatch(/[Cc]annot fork/);
  });
});

test("agents are killed for memory sooner than the daemon, which is spared where nobody chose otherwise", async () => {
  const run = await start(spawnerOf(undefined), specOf(sh("cat /proc/self/oom_score_adj")));
  const own = Number(readFileSync("/proc/self/oom_score_adj", "utf8"));
  expect(Number((await run.exit).outputTail)).toBe(Math.min(1_000, Math.max(0, own) + 500));
  const file = join(home, "oom_score_adj");
  for (const [before, after, agents] of [
    ["0\n", "-500", 500],
    ["-900\n", "-900\n", 500],
    ["200\n", "200\n", 700],
    ["800\n", "800\n", 1_000],
  ] as const) {
    writeFileSync(file, before);
    expect(oomScoreOfAgents(file)).toBe(agents);
    protectDaemon(file);
    expect(readFileSync(file, "utf8")).toBe(after);
  }
});

test("in version 2 a group hands down what it is offered, and holds each limit in its file", () => {
  const [base, folder] = [join(home, "base"), join(home, "base", "agents")];
  mkdirSync(join(folder, "R1"), { recursive: true });
  writeFileSync(join(base, "cgroup.controllers"), "cpuset cpu memory\n");
  const all = ["memory", "cpu", "pids"];
  writeFileSync(join(base, "cgroup.type"), "domain\n");
  writeFileSync(join(base, "cgroup.procs"), "42\n");
  expect(enable(base, folder, all)).toEqual([]);
  expect(existsSync(join(base, "cgroup.subtree_control"))).toBe(false);
  writeFileSync(join(base, "cgroup.procs"), "");
  expect(enable(base, folder, all)).toEqual(["memory", "cpu"]);
  const groups = createLimitGroups(
    new Map((["memory", "cpu", "pids"] as const).map((it) => [it, { version: 2, folder }])),
  );
  expect(groups.create("R1", { memoryBytes: 2 ** 26, cpuPercent: 150, pids: 7 })).toEqual([
    join(folder, "R1"),
  ]);
  const read = (file: string) => readFileSync(join(folder, "R1", file), "utf8");
  expect(["memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"].map(read)).toEqual([
    "67108864",
    "0",
    "1",
    "150000 100000",
    "7",
  ]);
  writeFileSync(join(folder, "R1", "cgroup.procs"), "42\n43\n");
  writeFileSync(join(folder, "R1", "memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 1\n");
  writeFileSync(join(folder, "R1", "cpu.max"), "max 100000");
  expect(groups.holding("R1", { memoryBytes: 2 ** 26, cpuPercent: 150 }, 42)).toEqual({
    memoryBytes: 2 ** 26,
  });
  expect(groups.holding("R1", { memoryBytes: 2 ** 26 }, 44)).toEqual({});
  expect([groups.count("R1", "oomKills"), groups.count("R1", "refusedForks")]).toEqual([2, 0]);
});

test("a command beside a run is held as the agent is", async () => {
  const limits = { memoryBytes: 2 ** 27, pids: 500, openFiles: 64 };
  const spawner = byGroups();
  const run = await start(spawner, specOf(sh("exec sleep 1000"), limits));
  const seen = join(home, "seen");
  const script = `{ cat /proc/self/oom_score_adj; ulimit -n; cat /proc/self/cgroup; } >${seen}`;
  const { signal } = new AbortController();
  await spawner.exec?.({ agentId: "a", runId }, ["/bin/sh", "-c", script], signal);
  const [score, files, ...groups] = readFileSync(seen, "utf8").trim().split("\n");
  const agentsGroups = readFileSync(`/proc/${run.pid}/cgroup`, "utf8").trim().split("\n");
  const ofVersion1 = (line: string) => !line.startsWith("0::");
  expect([score, files]).toEqual([String(oomScoreOfAgents()), "64"]);
  expect(groups.filter(ofVersion1)).toEqual(agentsGroups.filter(ofVersion1));
});

test("nothing is watched after the end, and a counter that cannot be read takes nothing back", async () => {
  const clock = createFakeClock();
  let kills = 3;
  let looks = 0;
  const groups = {
    ...createLimitGroups(new Map()),
    holding: () => ({ memoryBytes: 2 ** 20 }),
    count: (_: string, what: string) => {
      if (what !== "oomKills") return 0;
      looks += 1;
      return kills;
    },
  };
  const common = { runId, clock, groups, wanted: {}, otherwise: {}, pid: 1, pids: () => [], over: false };
  const limits = createRunLimits(common);
  const reports: LimitReport[] = [];
  limits.onLimit((report) => reports.push(report));
  for (const seen of [0, 3, 3]) {
    kills = seen;
    await clock.advance(1_000);
  }
  expect(reports).toEqual([]);
  kills = 0;
  expect(limits.verdict({ kind: "signaled", signal: "SIGKILL" }, false)).toEqual({});
  const before = looks;
  // Whoever listens only now.
  limits.onLimit((report) => reports.push(report));
  await clock.advance(10_000);
  expect([looks, reports]).toEqual([before, []]);
});
