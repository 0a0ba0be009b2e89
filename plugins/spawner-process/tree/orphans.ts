import type { Logger, OrphanedProcess, Survivor } from "../../../core/index.js";
import { isShim } from "../process/shim.js";
import { type Cgroups, cgroupPids } from "./cgroup.js";
import { bootId, isAlive, type ProcessIdentity } from "./identity.js";
import { allProcesses, environmentOf } from "./process-table.js";
import type { Remembered } from "./remembered-file.js";
import type { Tree } from "./tree.js";

export interface ReapOptions {
  /** Runs that go on. */
  live: ReadonlySet<string>;
  /** Agents with a record, and the newest run that it knows of. What else there is, is left alone. */
  known: ReadonlyMap<string, string | undefined>;
  /** Whose a run is, by what it left on the disk. */
  ownerOf: (runId: string) => string | undefined;
  home: string;
  cgroups: Cgroups | undefined;
  /** What the daemon before has seen of them, by run. */
  remembered: ReadonlyMap<string, Remembered>;
  end: (tree: Tree) => Promise<Survivor[]>;
  log: Logger;
}

/**
 * Ends what is left of this home's runs that are over: what outlived its agent while no daemon was
 * alive, found by its cgroup, by the run's id and this home in its environment, or because the daemon before
 * remembered it. Answers what it left alone, since the journal does not know of it.
 */
export async function reapOrphans(options: ReapOptions): Promise<OrphanedProcess[]> {
  const { log } = options;
  const unknown = unknownOrphans(options);
  const spared = new Set([...options.live, ...unknown.map(({ runId }) => runId)]);
  const trees = treesOf(options, ({ runId }) => !spared.has(runId));
  const endOne = async (tree: Tree) => {
    const survivors = await options.end(tree);
    if (survivors.length > 0) {
      log.error({ run_id: tree.runId, survivors }, "leftovers of a former run could not be ended");
    }
  };
  await Promise.all(trees.map(endOne));
  if (trees.length > 0) log.info({ runs: trees.length }, "leftovers of former runs were cleared away");
  return [...new Set(unknown.map(({ agentId }) => agentId))].map((agentId) => ({
    agentId,
    pids: [...new Set(unknown.filter((it) => it.agentId === agentId).map(({ pid }) => pid))],
  }));
}

type Scene = Pick<ReapOptions, "home" | "cgroups" | "remembered" | "ownerOf">;

/** The trees of the runs that are `wanted`, each with its group where it has one. */
export function treesOf(
  scene: Scene,
  wanted: (run: { runId: string; agentId: string | undefined }) => boolean,
): Tree[] {
  const { cgroups, remembered, ownerOf } = scene;
  const marked = markedProcesses(scene).filter(wanted);
  const runs = new Set(marked.map(({ runId }) => runId));
  const groups = new Set(cgroups?.runs());
  for (const runId of [...groups, ...remembered.keys()])
    if (wanted({ runId, agentId: ownerOf(runId) })) runs.add(runId);
  return [...runs].map((runId) => ({
    runId,
    main: NO_PROCESS,
    ...(groups.has(runId)
      ? { cgroup: cgroups?.pathOf(runId) ?? "" }
      : { remembered: remembered.get(runId) ?? new Map() }),
  }));
}

/**
 * What runs on of what the journal does not know of. A shim, or who is held at its gate, is no agent; and
 * what is nobody's is of no agent.
 */
function unknownOrphans(options: ReapOptions): OwnedProcess[] {
  const { live, known } = options;
  const isKnown = ({ agentId, runId }: OwnedProcess) =>
    known.has(agentId) && runId <= (known.get(agentId) ?? "");
  const found = [...markedProcesses(options), ...groupMembers(options), ...rememberedOnes(options)];
  return found.filter(isOwned).filter((it) => !live.has(it.runId) && !isKnown(it) && !isShim(it.pid));
}

/** Those in groups of runs, whatever their environment says. */
function groupMembers({ cgroups, ownerOf }: Scene): MarkedProcess[] {
  return (cgroups?.runs() ?? []).flatMap((runId) => {
    const agentId = ownerOf(runId);
    return cgroupPids(cgroups?.pathOf(runId) ?? "").map((pid) => ({ pid, runId, agentId }));
  });
}

/** Those that hide from both, and were seen before they did. */
function rememberedOnes({ remembered, ownerOf }: Scene): MarkedProcess[] {
  return [...remembered].flatMap(([runId, pids]) => {
    const living = [...pids].filter(([pid, { start_ticks }]) =>
      isAlive({ pid, start_ticks, boot_id: bootId() }),
    );
    return living.map(([pid]) => ({ pid, runId, agentId: ownerOf(runId) }));
  });
}

interface MarkedProcess {
  pid: number;
  runId: string;
  /** Absent when nobody can tell. */
  agentId: string | undefined;
}
type OwnedProcess = MarkedProcess & { agentId: string };

const isOwned = (it: MarkedProcess): it is OwnedProcess => it.agentId !== undefined;

/**
 * Whose run every process with the marks of this home is, the daemon's own apart. An agent can give its
 * children any environment: what the run left on the disk says it better.
 */
function markedProcesses({ home, ownerOf }: Scene): MarkedProcess[] {
  return allProcesses().flatMap(({ pid }) => {
    if (pid === process.pid || environmentOf(pid, "OPENSTARRY_HOME") !== home) return [];
    const runId = environmentOf(pid, "OPENSTARRY_RUN_ID");
    if (runId === undefined) return [];
    const agentId = ownerOf(runId) ?? (environmentOf(pid, "OPENSTARRY_AGENT_ID") || undefined);
    return [{ pid, agentId, runId }];
  });
}

/** The agent itself is gone: only its tree's other marks count. */
const NO_PROCESS: ProcessIdentity = { pid: 0, start_ticks: 0, boot_id: bootId() };
