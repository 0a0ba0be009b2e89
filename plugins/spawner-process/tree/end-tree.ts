import type { Clock, Survivor } from "../../../core/index.js";
import { killCgroup, removeCgroup } from "./cgroup.js";
import { bootId, isAlive, isForbidden, type ProcessStat, signalProcess } from "./identity.js";
import { members, type Tree } from "./tree.js";

const FIRST_LOOK_MS = 5;
const LONGEST_LOOK_MS = 100;
/** How long the kernel may take to clear away what was killed. */
const KILL_PATIENCE_MS = 2_000;

/** What lives of the tree. */
type Look = () => readonly ProcessStat[];

/** Resolves with what still lives when `forMs` is over; at once when nothing does. */
async function awaitEmpty(left: Look, clock: Clock, forMs: number): Promise<readonly ProcessStat[]> {
  const end = clock.monotonic() + forMs;
  for (let pause = FIRST_LOOK_MS; ; pause = Math.min(pause * 2, LONGEST_LOOK_MS)) {
    const living = left();
    const remaining = end - clock.monotonic();
    if (living.length === 0 || remaining <= 0) return living;
    await new Promise<void>((resolve) => void clock.after(Math.min(pause, remaining), resolve));
  }
}

/**
 * Sends a signal to every process of the tree, each proven to be the one that was seen; to none while the
 * daemon descends from its agent.
 */
function signalTree(tree: Tree, left: Look, signal: string): void {
  if (isForbidden(tree.main.pid) && isAlive(tree.main)) return;
  for (const { pid, start_ticks } of left()) {
    signalProcess({ pid, start_ticks, boot_id: bootId() }, signal);
  }
}

/** Asks what is `left` to end, then makes it. Resolves with what survived even that. */
export async function endLeftovers(
  tree: Tree,
  clock: Clock,
  how: { signal: string; graceMs: number },
  left: Look = () => members(tree),
): Promise<Survivor[]> {
  if (left().length === 0) return done(tree);
  if (how.graceMs > 0) {
    signalTree(tree, left, how.signal);
    signalTree(tree, left, "SIGCONT");
    if ((await awaitEmpty(left, clock, how.graceMs)).length === 0) return done(tree);
  }
  const end = clock.monotonic() + KILL_PATIENCE_MS;
  for (;;) {
    // Again and again: a process may fork between the look and the kill.
    if (tree.cgroup === undefined || !killCgroup(tree.cgroup)) signalTree(tree, left, "SIGKILL");
    const living = await awaitEmpty(left, clock, LONGEST_LOOK_MS);
    if (living.length === 0) return done(tree);
    if (clock.monotonic() > end) return living.map(({ pid, name }) => ({ pid, name }));
  }
}

function done(tree: Tree): Survivor[] {
  if (tree.cgroup !== undefined) removeCgroup(tree.cgroup);
  return [];
}
