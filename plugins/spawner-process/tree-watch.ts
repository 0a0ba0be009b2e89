import type { Clock, ProcessRef } from "../../core/index.js";
import type { ProcessStat } from "./identity.js";
import { allProcesses } from "./process-table.js";
import { membersOfGroup, remember, sortByTree, type Tree } from "./tree.js";

/** Looks at the trees of all runs at once, and remembers what it sees of those without a cgroup. */
export interface TreeWatch {
  /** Until `drop`. */
  watch(tree: Tree): void;
  drop(tree: Tree): void;
  /** Before something ends that others descend from. One look does for all who ask at about the same time. */
  lookNow(): void;
  /** The living processes of these runs, the agent's own first; runs without any are absent. */
  processes(runIds: readonly string[]): Promise<Map<string, ProcessRef[]>>;
  release(): void;
}

/** Between two looks, while there is a run without a cgroup. */
const LOOK_MS = 1_000;
/** Of the time, looking takes no more than this part. */
const LONGEST_PART = 0.02;
/** After so long the event loop has its turn, however many runs there are. */
const SLICE_MS = 5;
/** A look that is no older will do. */
const SAME_TIME_MS = 20;

export function createTreeWatch(clock: Clock): TreeWatch {
  const trees = new Map<string, Tree>();
  let lookedAtMs = Number.NEGATIVE_INFINITY;
  let cancelLook: (() => void) | undefined;

  const loose = () => [...trees.values()].filter(({ cgroup }) => cgroup === undefined);

  /** At those without a cgroup, and at these. Puts the next look off. Throws when nobody can tell. */
  function look(others: readonly Tree[] = []): ReadonlyMap<Tree, ProcessStat[]> {
    const beganMs = clock.monotonic();
    try {
      const found = sortByTree(allProcesses(), [...new Set([...loose(), ...others])]);
      for (const [tree, mine] of found) remember(tree, mine);
      return found;
    } finally {
      lookedAtMs = clock.monotonic();
      goOn(Math.max(LOOK_MS, (lookedAtMs - beganMs) / LONGEST_PART));
    }
  }

  function goOn(afterMs: number) {
    cancelLook?.();
    cancelLook = loose().length > 0 ? clock.after(afterMs, quietly) : undefined;
  }

  function quietly() {
    try {
      look();
    } catch {
      // No free descriptors, no memory: what was remembered stays, and the next look may do better.
    }
  }

  return {
    watch(tree) {
      trees.set(tree.runId, tree);
      if (!cancelLook) goOn(LOOK_MS);
    },
    drop: (tree) => void trees.delete(tree.runId),
    lookNow() {
      if (loose().length > 0 && clock.monotonic() - lookedAtMs > SAME_TIME_MS) quietly();
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
      if (others.length > 0)
        for (const [tree, mine] of look(others)) if (found.has(tree)) found.set(tree, mine);
      return new Map(
        [...found].flatMap(([tree, mine = []]) =>
          mine.length > 0 ? [[tree.runId, refsOf(tree, mine)]] : [],
        ),
      );
    },
    release() {
      trees.clear();
      cancelLook?.();
    },
  };
}

function refsOf({ main }: Tree, found: readonly ProcessStat[]): ProcessRef[] {
  const refs = found.map(({ pid, start_ticks }) => ({ pid, start_ticks }));
  return refs.sort((a, b) => Number(b.pid === main.pid) - Number(a.pid === main.pid));
}
