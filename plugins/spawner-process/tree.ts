import { readdirSync, readFileSync } from "node:fs";
import type { Clock, Survivor } from "../../core/index.js";
import { cgroupPids, killCgroup, removeCgroup } from "./cgroup.js";
import { bootId, type ProcessIdentity, type ProcessStat, readStat, signalProcess } from "./identity.js";

/** How the processes of one run are told from all others. */
export interface Tree {
  readonly runId: string;
  /** The agent's own process, which leads a session of its own. */
  readonly main: ProcessIdentity;
  /** Carries the run's marks and is not part of it: it has to live to tell how the agent ended. */
  readonly shim?: ProcessIdentity;
  /** The run's cgroup, where it was put into one. */
  readonly cgroup?: string;
}

/**
 * The living processes of a run. With a cgroup: all in it. Without: its session, the descendants of
 * those, and whatever carries the run's id in its environment (as far as that may be read).
 */
export function members(tree: Tree): ProcessStat[] {
  if (tree.cgroup !== undefined) return living(cgroupPids(tree.cgroup));
  // Nothing of a run is older than its agent; and the shim is no part of it.
  const all = allProcesses().filter(
    ({ pid, start_ticks }) => start_ticks >= tree.main.start_ticks && pid !== tree.shim?.pid,
  );
  const found = new Map<number, ProcessStat>();
  const tag = `OPENSTARRY_RUN_ID=${tree.runId}`;
  for (const it of all) {
    // Session 0 is the kernel's own threads.
    if ((it.sid === tree.main.pid && it.sid !== 0) || environmentHas(it.pid, tag)) found.set(it.pid, it);
  }
  for (let grew = true; grew; ) {
    grew = false;
    for (const it of all) {
      if (!found.has(it.pid) && found.has(it.ppid)) {
        found.set(it.pid, it);
        grew = true;
      }
    }
  }
  // A session whose leader is another process of the same number is not ours.
  const leader = readStat(tree.main.pid);
  const reused = leader !== undefined && leader.start_ticks !== tree.main.start_ticks;
  return [...found.values()].filter((it) => !reused || environmentHas(it.pid, tag));
}

function living(pids: readonly number[]): ProcessStat[] {
  return pids
    .map(readStat)
    .filter((it) => it !== undefined && it.state !== "Z" && it.state !== "X") as ProcessStat[];
}

export function allProcesses(): ProcessStat[] {
  return living(
    readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(Number),
  );
}

/** A variable of a process, as it was given when the process began. */
export function environmentOf(pid: number, name: string): string | undefined {
  try {
    const entries = readFileSync(`/proc/${pid}/environ`, "latin1").split("\0");
    return entries.find((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1);
  } catch {
    return undefined;
  }
}

function environmentHas(pid: number, entry: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(entry);
  } catch {
    return false;
  }
}

const FIRST_LOOK_MS = 5;
const LONGEST_LOOK_MS = 100;
/** How long the kernel may take to clear away what was killed. */
const KILL_PATIENCE_MS = 2_000;

/** Resolves with what still lives when `forMs` is over; at once when nothing does. */
async function awaitEmpty(tree: Tree, clock: Clock, forMs: number): Promise<ProcessStat[]> {
  const end = clock.monotonic() + forMs;
  for (let pause = FIRST_LOOK_MS; ; pause = Math.min(pause * 2, LONGEST_LOOK_MS)) {
    const left = members(tree);
    const remaining = end - clock.monotonic();
    if (left.length === 0 || remaining <= 0) return left;
    await new Promise<void>((resolve) => void clock.after(Math.min(pause, remaining), resolve));
  }
}

/** Sends a signal to every process of the tree, each proven to be the one that was seen. */
export function signalTree(tree: Tree, signal: string): void {
  for (const { pid, start_ticks } of members(tree)) {
    signalProcess({ pid, start_ticks, boot_id: bootId() }, signal);
  }
}

/** Asks what is left to end, then makes it. Resolves with what survived even that. */
export async function endLeftovers(
  tree: Tree,
  clock: Clock,
  how: { signal: string; graceMs: number },
): Promise<Survivor[]> {
  if (members(tree).length === 0) return done(tree);
  if (how.graceMs > 0) {
    signalTree(tree, how.signal);
    signalTree(tree, "SIGCONT");
    if ((await awaitEmpty(tree, clock, how.graceMs)).length === 0) return done(tree);
  }
  const end = clock.monotonic() + KILL_PATIENCE_MS;
  for (;;) {
    // Again and again: a process may fork between the look and the kill.
    if (tree.cgroup === undefined || !killCgroup(tree.cgroup)) signalTree(tree, "SIGKILL");
    const left = await awaitEmpty(tree, clock, LONGEST_LOOK_MS);
    if (left.length === 0) return done(tree);
    if (clock.monotonic() > end) return left.map(({ pid, name }) => ({ pid, name }));
  }
}

function done(tree: Tree): Survivor[] {
  if (tree.cgroup !== undefined) removeCgroup(tree.cgroup);
  return [];
}
