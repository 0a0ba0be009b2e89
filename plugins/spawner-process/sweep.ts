import type { Logger, Survivor } from "../../core/index.js";
import type { Cgroups } from "./cgroup.js";
import { bootId, type ProcessIdentity } from "./identity.js";
import { allProcesses, environmentOf } from "./process-table.js";
import type { Tree } from "./tree.js";

export interface SweepOptions {
  /** Runs that go on. */
  live: ReadonlySet<string>;
  /** Agents whose runs are left alone, whether they go on or not. */
  unknown: ReadonlySet<string>;
  home: string;
  cgroups: Cgroups | undefined;
  end: (tree: Tree) => Promise<Survivor[]>;
  log: Logger;
}

/**
 * Ends what is left of this home's runs that are over: what outlived its agent while no daemon was
 * alive, found by its cgroup or by the run's id and this home in its environment.
 */
export async function sweepLeftovers(options: SweepOptions): Promise<void> {
  const { cgroups, log } = options;
  const trees = new Map<string, Tree>();
  const marked = markedProcesses(options.home);
  const left = marked.filter(({ agentId }) => options.unknown.has(agentId));
  const live = new Set([...options.live, ...left.map(({ runId }) => runId)]);
  for (const runId of cgroups?.runs() ?? []) {
    if (!live.has(runId)) trees.set(runId, { runId, main: NOBODY, cgroup: cgroups?.pathOf(runId) ?? "" });
  }
  for (const { runId } of marked) {
    if (!live.has(runId) && !trees.has(runId)) trees.set(runId, { runId, main: NOBODY });
  }
  const endOne = async (tree: Tree) => {
    const survivors = await options.end(tree);
    if (survivors.length > 0) {
      log.error({ run_id: tree.runId, survivors }, "leftovers of a former run could not be ended");
    }
  };
  await Promise.all([...trees.values()].map(endOne));
  if (trees.size > 0) log.info({ runs: trees.size }, "leftovers of former runs were cleared away");
}

/** Whose run every process with the marks of this home is, the daemon's own apart. */
function markedProcesses(home: string): { agentId: string; runId: string }[] {
  return allProcesses().flatMap(({ pid }) => {
    if (pid === process.pid || environmentOf(pid, "OPENSTARRY_HOME") !== home) return [];
    const runId = environmentOf(pid, "OPENSTARRY_RUN_ID");
    const agentId = environmentOf(pid, "OPENSTARRY_AGENT_ID") ?? "";
    return runId === undefined ? [] : [{ agentId, runId }];
  });
}

/** The agent itself is gone: only its tree's other marks count. */
const NOBODY: ProcessIdentity = { pid: 0, start_ticks: 0, boot_id: bootId() };
