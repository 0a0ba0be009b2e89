import { cgroupPids } from "./cgroup.js";
import type { ProcessIdentity, ProcessStat } from "./identity.js";
import { allProcesses, environmentOf, living } from "./process-table.js";
import type { Remembered } from "./remembered-file.js";

/** How the processes of one run are told from all others. */
export interface Tree {
  readonly runId: string;
  /** The agent's own process, which leads a session of its own. */
  readonly main: ProcessIdentity;
  /** Carries the run's marks and is not part of it: it has to live to tell how the agent ended. */
  readonly shim?: ProcessIdentity;
  /** The run's cgroup, where it was put into one. */
  readonly cgroup?: string;
  /**
   * This daemon has seen the agent alive: until nothing is left of its session, its number is nobody
   * else's. Without that, a session is only proven by somebody in it who is.
   */
  led?: boolean;
  /** Those of it that were alive at the last look: nothing hides them any more. */
  remembered?: Remembered;
}

/** A process of a run, and how it was proven. */
export interface Member extends ProcessStat {
  /** By nothing but the run's id in an environment, its own or of one that it descends from: that can be copied. */
  byMarks?: boolean;
}

/**
 * The living processes of a run. With a cgroup: all in it. Without: the agent, those remembered, their
 * sessions and descendants, and whatever carries the run's id in its environment (as far as that may be
 * read). Never this daemon or, through it, the runs that it started: an agent may have started the daemon
 * itself. Throws when it cannot be told who is there.
 */
export function members(tree: Tree): ProcessStat[] {
  const inGroup = membersOfGroup(tree);
  if (inGroup) return inGroup;
  const all = allProcesses();
  const sure = sortByTree(all, [tree]).get(tree) ?? [];
  const known = new Set(sure.map(({ pid }) => pid));
  const mayBe = all.filter((it) => !known.has(it.pid) && it.start_ticks >= tree.main.start_ticks);
  const marked = readMarks(mayBe, [tree]);
  const found = marked.size > 0 ? (sortByTree(all, [tree], marked).get(tree) ?? []) : sure;
  remember(tree, found);
  return found;
}

/** Which of these processes carry the id of one of these runs in their environment. */
export function readMarks(
  processes: readonly ProcessStat[],
  trees: readonly Tree[],
): ReadonlyMap<number, Tree> {
  const byRun = new Map(trees.map((tree) => [tree.runId, tree]));
  const marked = new Map<number, Tree>();
  for (const { pid } of processes) {
    const tree = byRun.get(environmentOf(pid, "OPENSTARRY_RUN_ID") ?? "");
    if (tree) marked.set(pid, tree);
  }
  return marked;
}

/** `undefined` without a cgroup of its own, or when the daemon itself is in it. */
export function membersOfGroup({ cgroup }: Tree): ProcessStat[] | undefined {
  const pids = cgroup === undefined ? undefined : cgroupPids(cgroup);
  return pids?.includes(process.pid) ? undefined : pids && living(pids);
}

export function remember(tree: Tree, found: readonly Member[]): void {
  tree.remembered = new Map(
    found.map(({ pid, start_ticks, byMarks = false }) => [pid, { start_ticks, byMarks }]),
  );
}

/**
 * Whose each of `all` processes is, the agent first, in one pass for all trees: from those that are
 * proven on to their descendants and their sessions. Those that are only `marked` as a tree's, and what descends
 * from them, prove no session but one that they lead, or the agent's: now, and when they are remembered.
 */
export function sortByTree(
  all: readonly ProcessStat[],
  trees: readonly Tree[],
  marked: ReadonlyMap<number, Tree> = new Map(),
): Map<Tree, Member[]> {
  const byPid = new Map(all.map((it) => [it.pid, it]));
  const byParent = group(all, ({ ppid }) => ppid);
  const bySession = group(all, ({ sid }) => sid);
  const found = new Map<Tree, Member[]>(trees.map((tree) => [tree, []]));
  // Shims and the daemon are nobody's, and lead to nobody.
  const taken = new Map<number, Tree | undefined>([[process.pid, undefined]]);
  for (const { shim } of trees) if (shim) taken.set(shim.pid, undefined);

  function take(tree: Tree, it: Member | undefined, byMarks = false) {
    // Nothing of a run is older than its agent.
    if (!it || it.start_ticks < tree.main.start_ticks) return;
    if (!taken.has(it.pid)) {
      taken.set(it.pid, tree);
      it.byMarks = byMarks;
      found.get(tree)?.push(it);
    } else if (!byMarks && taken.get(it.pid) === tree) it.byMarks = false;
  }

  /** Session 0 is the kernel's own threads. One that is led by somebody else is not ours. */
  function takeSession(tree: Tree, sid: number) {
    const leader = byPid.get(sid);
    if (sid === 0 || (leader && leader.start_ticks < tree.main.start_ticks)) return;
    if (sid === tree.main.pid && leader && leader.start_ticks !== tree.main.start_ticks) return;
    for (const it of bySession.get(sid) ?? []) take(tree, it);
  }

  for (const tree of trees) {
    const { main } = tree;
    if (byPid.get(main.pid)?.start_ticks === main.start_ticks) take(tree, byPid.get(main.pid));
  }
  for (const tree of trees) {
    for (const [pid, { start_ticks, byMarks }] of tree.remembered ?? []) {
      if (byPid.get(pid)?.start_ticks === start_ticks) take(tree, byPid.get(pid), byMarks);
    }
    if (tree.led) takeSession(tree, tree.main.pid);
  }
  for (const [pid, tree] of marked) take(tree, byPid.get(pid), true);
  for (const [tree, mine] of found) {
    // It grows meanwhile.
    for (const it of mine) {
      for (const child of byParent.get(it.pid) ?? [])
        if (child.start_ticks >= it.start_ticks) take(tree, child, it.byMarks);
      const led = it.sid === it.pid || it.sid === tree.main.pid;
      // Whoever is there to lead it speaks for the session; marks can be copied, a session cannot.
      if (led || !(byPid.has(it.sid) || it.byMarks)) takeSession(tree, it.sid);
    }
  }
  return found;
}

function group(all: readonly ProcessStat[], keyOf: (it: ProcessStat) => number): Map<number, ProcessStat[]> {
  const groups = new Map<number, ProcessStat[]>();
  for (const it of all) {
    const key = keyOf(it);
    const group = groups.get(key);
    if (group) group.push(it);
    else groups.set(key, [it]);
  }
  return groups;
}
