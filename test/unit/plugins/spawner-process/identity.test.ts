import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../../../../core/index.js";
import { createRunFolders } from "../../../../plugins/spawner-process/process/folders.js";
import { createProcessSpawner } from "../../../../plugins/spawner-process/spawner.js";
import {
  identify,
  type ProcessStat,
  signalGroup,
  signalProcess,
} from "../../../../plugins/spawner-process/tree/identity.js";
import { openPidfd } from "../../../../plugins/spawner-process/tree/pidfd.js";
import { readRemembered, writeRemembered } from "../../../../plugins/spawner-process/tree/remembered-file.js";
import { remember, sortByTree, type Tree } from "../../../../plugins/spawner-process/tree/tree.js";
import { seeProcess } from "../../../helpers/processes.js";

const ROOT = fileURLToPath(new URL("../../../..", import.meta.url));
const silent = { debug() {}, info() {}, warn() {}, error() {} };

let home: string;
let started: number[];
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "openstarry-identity-"));
  started = [];
});
afterEach(() => {
  rmSync(home, { recursive: true, force: true });
  for (const pid of started) if (seeProcess(pid)) process.kill(pid, "SIGKILL");
});

/** Somebody else's session: who leads it, which may have ended, and one who stays. */
async function strangers(
  leader: "stays" | "ends",
): Promise<{ leader: number; other: number; began: number }> {
  const script = `sleep 100000 & echo $!; read -r _; ${leader === "stays" ? "exec sleep 100000" : ""}`;
  const child: ChildProcess = spawn("sh", ["-c", script], {
    detached: true,
    stdio: ["pipe", "pipe", "ignore"],
  });
  const { pid = 0 } = child;
  const [line] = await once(child.stdout as NodeJS.ReadableStream, "data");
  const other = Number(line);
  started.push(other, pid);
  const began = identify(pid)?.start_ticks ?? 0;
  const ended = once(child, "exit");
  child.stdin?.end("\n");
  if (leader === "ends") await ended;
  return { leader: pid, other, began };
}

const newSpawner = () =>
  createProcessSpawner({
    clock: systemClock,
    log: silent,
    home,
    folders: createRunFolders(home, join(home, "shared")),
    cgroups: undefined,
    native: undefined,
    punch: undefined,
    env: process.env,
    onProblem() {},
  });

function adopt(target: unknown) {
  const stop = { signal: "SIGKILL", graceMs: 0 };
  const logs = { maxSizeBytes: 2 ** 20, keep: 2, merge: false };
  return newSpawner().adopt({ agentId: "a", runId: "R-none", target, stop, logs });
}

const bootOf = () => identify(process.pid)?.boot_id ?? "";

test.each([
  ["everybody", { pid: -1 }],
  ["its own group", { pid: 0 }],
  ["init", { pid: 1 }],
  ["a group", { pid: -process.ppid }],
  ["half a process", { pid: 2.5 }],
  ["nothing", {}],
])("a record that names %s is of nobody", async (_, named) => {
  const outcome = await adopt({ start_ticks: 0, boot_id: bootOf(), folder: home, ...named });
  expect(outcome).toEqual({ outcome: { status: { kind: "lost" }, note: "its record names no process" } });
});

test("a record that names the daemon itself is of nobody", async () => {
  const outcome = await adopt({ ...identify(process.pid), folder: home });
  expect(outcome).toEqual({
    outcome: { status: { kind: "lost" }, note: "its record names the daemon itself" },
  });
});

test("a pid that is somebody else's by now: neither that process nor its session is touched", async () => {
  const { leader, other, began } = await strangers("stays");
  const target = { pid: leader, start_ticks: began, boot_id: bootOf(), folder: home };
  const older = await adopt({ ...target, start_ticks: began - 1_000 });
  expect(older.outcome?.status).toEqual({ kind: "lost" });
  const younger = await adopt({ ...target, start_ticks: began + 1_000 });
  expect(younger.outcome?.status).toEqual({ kind: "lost" });
  const before = await adopt({ ...target, boot_id: "00000000-0000-0000-0000-000000000000" });
  expect(before.outcome).toEqual({ status: { kind: "lost" }, cause: "host_reboot" });
  expect([seeProcess(leader)?.pid, seeProcess(other)?.pid]).toEqual([leader, other]);
});

test("a session whose leader is gone is nobody's, until somebody in it is proven to be of the run", async () => {
  const { leader, other, began } = await strangers("ends");
  expect(seeProcess(leader)).toBeUndefined();
  for (const start_ticks of [began, began - 1_000]) {
    const { outcome } = await adopt({ pid: leader, start_ticks, boot_id: bootOf(), folder: home });
    expect(outcome?.status).toEqual({ kind: "lost" });
  }
  expect(seeProcess(other)?.session).toBe(leader);
});

test("who copied an environment brings nobody of its session along, not at the second look either", () => {
  const stat = (pid: number, ppid: number, sid: number, start_ticks: number) => ({
    ...{ pid, ppid, sid, start_ticks },
    ...{ name: "x", state: "S", pgid: sid },
  });
  const agent = stat(100, 1, 100, 1_000);
  // Of a session 400 without a leader; of that are a child of its own, too, and a stranger. It leads none.
  const copied = [stat(500, 1, 400, 2_000), stat(502, 500, 400, 3_000)];
  // The agent's daemon, of a session 600 without a leader, and what that has left there.
  const daemon = stat(600, 100, 600, 2_000);
  const worker = stat(601, 600, 600, 2_100);
  const orphan = stat(602, 1, 600, 4_000);
  const stranger = stat(501, 1, 400, 3_000);
  const tree: Tree = { runId: "R", main: { ...agent, boot_id: bootOf() }, led: true };
  const look = (all: ProcessStat[], marked?: ReadonlyMap<number, Tree>) => {
    const found = sortByTree(structuredClone(all), [tree], marked).get(tree) ?? [];
    remember(tree, found);
    return found.map(({ pid }) => pid).sort();
  };
  expect(look([agent, daemon, worker, stranger, ...copied], new Map([[500, tree]]))).toEqual([
    100, 500, 502, 600, 601,
  ]);
  // The file that the next daemon reads says it, too.
  const file = join(home, "remembered.json");
  writeRemembered(file, new Map([["R", tree.remembered ?? new Map()]]));
  const read = readRemembered(file).get("R");
  expect(read).toEqual(tree.remembered);
  expect(look([agent, worker, orphan, stranger, ...copied])).toEqual([100, 500, 502, 601, 602]);
});

test("an agent that the daemon descends from is taken over, and not ended from below", () => {
  // In a session of its own: a mistake would end all of it. The sibling stands for what else is in there.
  const source = `const plugin = async (name) => {
      const module = await import("${ROOT}/plugins/" + name + ".ts");
      return { ...module, ...module.default };
    };
    const { createProcessSpawner } = await plugin("spawner-process/spawner");
    const { createRunFolders } = await plugin("spawner-process/process/folders");
    const { identify, readStat, signalProcess, signalGroup } = await plugin("spawner-process/tree/identity");
    const { systemClock } = await plugin("../core/lib/clock");
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const spawner = createProcessSpawner({ clock: systemClock, log, home: "${home}", env: process.env,
      folders: createRunFolders("${home}", "${home}/shared") });
    const alive = setInterval(() => {}, 1e6);
    const parent = identify(process.ppid);
    const stop = { signal: "SIGKILL", graceMs: 0 };
    const { handle } = await spawner.adopt({ agentId: "a", runId: "R", target: { ...parent, folder: "" }, stop, logs: {} });
    const { survivors } = await handle.stop(stop);
    const direct = [signalProcess(parent, "SIGKILL"), signalGroup(parent, "SIGKILL")];
    console.log(JSON.stringify({ direct, survivors: survivors.map(({ pid }) => pid).includes(parent.pid),
      sibling: readStat(Number(process.env.SIBLING)) !== undefined }));
    process.exit(0);`;
  const node = [process.execPath, "--import", "jiti/register", "--input-type=module", "-e", source];
  const wrapper = 'sleep 100 & export SIBLING=$!; "$@"; code=$?; kill $SIBLING; exit $code';
  const run = spawnSync("sh", ["-c", 'exec setsid -w sh -c "$@"', "sh", wrapper, "sh", ...node], {
    cwd: ROOT,
    encoding: "utf8",
  });
  if (run.status !== 0) throw new Error(run.stderr);
  expect(JSON.parse(run.stdout)).toEqual({ direct: [false, false], survivors: true, sibling: true });
});

test("a signal goes through a handle that stays with the process it was taken of", async () => {
  const child = spawn("sh", ["-c", "sleep 100000 & echo $!; wait"], { detached: true, stdio: "pipe" });
  const [line] = await once(child.stdout, "data");
  started.push(Number(line), child.pid as number);
  const identity = identify(child.pid as number);
  const handle = openPidfd(child.pid as number);
  if (!identity) throw new Error("the child is not there");
  if (!handle) console.warn("no pidfd here: signals go by pid after a look at the start time");
  expect(handle?.send(0) ?? true).toBe(true);
  expect(signalProcess({ ...identity, start_ticks: identity.start_ticks + 1 }, "SIGKILL")).toBe(false);
  const ended = once(child, "exit");
  expect(signalGroup(identity, "SIGTERM")).toBe(true);
  expect(await ended).toEqual([null, "SIGTERM"]);
  expect(signalProcess(identity, "SIGKILL")).toBe(false);
  // Whoever has the number by now: the handle does not lead to it.
  expect(handle?.send(0) ?? false).toBe(false);
  handle?.close();
});
