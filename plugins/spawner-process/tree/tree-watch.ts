import type { Clock, Logger, ProcessRef } from "../../../core/index.js";
import { type ProcessStat, readVisibleStat } from "./identity.js";
import { allProcesses, living } from "./process-table.js";
import { type Remembered, readRemembered, writeRemembered } from "./remembered-file.js";
import { membersOfGroup, readMarks, remember, sortByTree, type Tree } from "./tree.js";

/**
 * Looks at the trees of all runs at once, and remembers what it sees of those without a cgroup: a process
 * that was seen once is found again, whatever it does to hide. In a file, so that the next daemon knows.
 */
export interface TreeWatch {
  /** Until `drop`. What the daemon before remembered of it is remembered again. */
  watch(tree: Tree): void;
  drop(tree: Tree): void;
  /** Before something ends that others descend from. One look does for all who ask at about the same time. */
  lookNow(): void;
  /** The living processes of one tree, by the same look. Throws when it cannot be told. */
  membersOf(tree: Tree): readonly ProcessStat[];
  /** Of runs that nobody watches: what the daemon before remembered of them. */
  orphans(): ReadonlyMap<string, Remembered>;
  /** Forgets those, but for these runs. */
  forgetOrphans(but: ReadonlySet<string>): void;
  /** The living processes of these runs, the agent's own first; runs without any are absent. Throws when it cannot be told. */
  processes(runIds: readonly string[]): Promise<Map<string, ProcessRef[]>>;
  release(): void;
}

/** Between two looks, while there is a run without a cgroup. */
const LOOK_MS = 1_000;
/** Looking takes no more than this part of the time. */
const LARGEST_PART = 0.05;
/** After so long the event loop has its turn, however many runs there are. */
const SLICE_MS = 5;
/** A look that is no older will do. */
const SAME_TIME_MS = 20;

export function createTreeWatch(clock: Clock, log: Logger, file: string): TreeWatch {
  const trees = new Map<string, Tree>();
  const orphans = readRemembered(file);
  const written = new Set<string>();
  let strangers: ReadonlyMap<number, number> = new Map();
  let last: ReadonlyMap<Tree, ProcessStat[]> = new Map();
  let lookedAtMs = Number.NEGATIVE_INFINITY;
  let cancelLook: (() => void) | undefined;
  let complained = false;

  const loose = () => [...trees.values()].filter(({ cgroup }) => cgroup === undefined);

  /** At those without a cgroup, and at these. Puts the next look off. Throws when nobody can tell. */
  function look(others: readonly Tree[] = []): ReadonlyMap<Tree, ProcessStat[]> {
    const beganMs = clock.monotonic();
    last = new Map();
    try {
      const watched = [...new Set([...loose(), ...others])];
      const all = allProcesses();
      let found = sortByTree(all, watched);
      const marked = readMarks(newcomers(all, found), watched);
      if (marked.size > 0) found = sortByTree(all, watched, marked);
      // What came and went between two looks is not worth a file.
      const stays = [...found].some(([tree, mine]) => mine.some((it) => isNews(tree, it)));
      for (const [tree, mine] of found) remember(tree, mine);
      if (stays) write();
      last = found;
      return found;
    } finally {
      lookedAtMs = clock.monotonic();
      goOn(Math.max(LOOK_MS, (lookedAtMs - beganMs) / LARGEST_PART));
    }
  }

  /** Those of nobody that no look has seen before: an environment is read once, which is what costs. */
  function newcomers(all: readonly ProcessStat[], found: ReadonlyMap<Tree, ProcessStat[]>): ProcessStat[] {
    const known = new Set([...found.values()].flat());
    const oldest = Math.min(...[...found.keys()].map(({ main }) => main.start_ticks));
    const others = all.filter((it) => it.start_ticks >= oldest && !known.has(it));
    const news = others.filter((it) => strangers.get(it.pid) !== it.start_ticks);
    strangers = new Map(others.map(({ pid, start_ticks }) => [pid, start_ticks]));
    return news;
  }

  function isNews({ main, remembered }: Tree, { pid, start_ticks }: ProcessStat): boolean {
    if (pid === main.pid || remembered?.get(pid)?.start_ticks !== start_ticks) return false;
    return !written.has(`${pid} ${start_ticks}`);
  }

  function write() {
    const runs = new Map(orphans);
    for (const { runId, remembered = new Map() } of loose()) runs.set(runId, remembered);
    written.clear();
    for (const pids of runs.values())
      for (const [pid, { start_ticks }] of pids) written.add(`${pid} ${start_ticks}`);
    try {
      writeRemembered(file, runs);
    } catch (err) {
      if (!complained) log.warn({ err }, "what belongs to the runs could not be written down");
      complained = true;
    }
  }

  function goOn(afterMs: number) {
    cancelLook?.();
    cancelLook = loose().length > 0 ? clock.after(afterMs, lookQuietly) : undefined;
  }

  function lookQuietly() {
    try {
      look();
    } catch {
      // No free descriptors, no memory: what was remembered stays, and the next look may do better.
    }
  }

  const isRecent = () => clock.monotonic() - lookedAtMs <= SAME_TIME_MS;

  return {
    watch(tree) {
      trees.set(tree.runId, tree);
      const known = orphans.get(tree.runId);
      if (known) tree.remembered = known;
      orphans.delete(tree.runId);
      if (!cancelLook) goOn(LOOK_MS);
    },
    drop: (tree) => void trees.delete(tree.runId),
    lookNow() {
      if (loose().length > 0 && !isRecent()) lookQuietly();
    },
    membersOf(tree) {
      const inGroup = membersOfGroup(tree);
      if (inGroup) return inGroup;
      const recent = isRecent() ? last.get(tree) : undefined;
      const left = recent?.filter(isThere) ?? [];
      // Of nobody nothing comes any more; but who was there may have left somebody.
      return left.length > 0 || recent?.length === 0 ? left : (look([tree]).get(tree) ?? []);
    },
    orphans: () => orphans,
    forgetOrphans(but) {
      for (const runId of orphans.keys()) if (!but.has(runId)) orphans.delete(runId);
    },
    async processes(runIds) {
      const asked = runIds.flatMap((runId) => trees.get(runId) ?? []);
      const found = new Map<Tree, ProcessStat[] | undefined>();
      let sliceEndsMs = clock.monotonic() + SLICE_MS;
      for (const tree of asked) {
        found.set(tree, membersOfGroup(tree));
        if (clock.monotonic() < sliceEndsMs) continue;
        await new Promise((resolve) => setImmediate(resolve));
        sliceEndsMs = clock.monotonic() + SLICE_MS;
      }
      const others = asked.filter((tree) => found.get(tree) === undefined);
      if (others.length > 0) {
        for (const [tree, mine] of look(others)) if (found.has(tree)) found.set(tree, mine);
      }
      const entries = [...found].map(([tree, mine = []]) => [tree.runId, refsOf(tree, mine)] as const);
      return new Map(entries.filter(([, refs]) => refs.length > 0));
    },
    release() {
      if (loose().length > 0) {
        lookQuietly();
        write();
      }
      trees.clear();
      cancelLook?.();
    },
  };
}

function isThere({ pid, start_ticks }: ProcessStat): boolean {
  return living([pid], readVisibleStat).some((it) => it.start_ticks === start_ticks);
}

function refsOf({ main }: Tree, found: readonly ProcessStat[]): ProcessRef[] {
  const refs = found.map(({ pid, start_ticks }) => ({ pid, start_ticks }));
  return refs.sort((a, b) => Number(b.pid === main.pid) - Number(a.pid === main.pid));
}
