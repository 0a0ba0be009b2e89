import { readdirSync } from "node:fs";
import type { Clock, Survivor } from "../../core/index.js";
import { cgroupPids, killCgroup, removeCgroup } from "./cgroup.js";
import {
  bootId,
  NOT_TO_BE_SEEN,
  type ProcessIdentity,
  type ProcessStat,
  readIfThere,
  readStat,
  readVisibleStat,
  signalProcess,
} from "./identity.js";

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
 * those, and whatever carries the run's id in its environment (as far as that may be read). Never this
 * daemon or, through it, the runs that it started: an agent may have started the daemon itself. Throws
 * when it cannot be told who is there.
 */
export function members(tree: Tree): ProcessStat[] {
  const inGroup = tree.cgroup === undefined ? undefined : cgroupPids(tree.cgroup);
  if (inGroup && !inGroup.includes(process.pid)) return living(inGroup);
  // Nothing of a run is older than its agent; and the shim is no part of it.
  const all = allProcesses().filter(
    ({ pid, start_ticks }) =>
      start_ticks >= tree.main.start_ticks && pid !== tree.shim?.pid && pid !== process.pid,
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
  const leader = readVisibleStat(tree.main.pid);
  const reused = leader !== undefined && leader.start_ticks !== tree.main.start_ticks;
  return [...found.values()].filter((it) => !reused || environmentHas(it.pid, tag));
}

function living(pids: readonly number[], stat = readStat): ProcessStat[] {
  return pids
    .map((pid) => stat(pid))
    .filter((it) => it !== undefined && it.state !== "Z" && it.state !== "X") as ProcessStat[];
}

export function allProcesses(): ProcessStat[] {
  return living(
    readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(Number),
    readVisibleStat,
  );
}

/** A variable of a process, as it was given when the process began. Throws when that cannot be told. */
export function environmentOf(pid: number, name: string): string | undefined {
  const entry = environment(pid).find((it) => it.startsWith(`${name}=`));
  return entry?.slice(name.length + 1);
}

function environmentHas(pid: number, entry: string): boolean {
  return environment(pid).includes(entry);
}

function environment(pid: number): string[] {
  return readIfThere(`/proc/${pid}/environ`, NOT_TO_BE_SEEN)?.split("\0") ?? [];
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
