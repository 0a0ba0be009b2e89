import type { PluginContext } from "../../core/index.js";

/** Degrades a plugin while it has faults of single runs. */
export interface PerRunHealth {
  add(runId: string, fault: string): void;
  /** Removes the faults of a run that is over. */
  end(runId: string): void;
}

/** How many faults are named. The others are counted. */
const MOST_NAMED = 3;

export function createPerRunHealth(
  daemon: Pick<PluginContext["daemon"], "degraded" | "recovered">,
): PerRunHealth {
  const byRun = new Map<string, Set<string>>();

  function report() {
    const all = [...byRun.values()].flatMap((faults) => [...faults]);
    if (all.length === 0) return daemon.recovered();
    const more = all.length - MOST_NAMED;
    daemon.degraded(all.slice(0, MOST_NAMED).join("; ") + (more > 0 ? `; and ${more} more` : ""));
  }

  return {
    add(runId, fault) {
      byRun.set(runId, (byRun.get(runId) ?? new Set()).add(fault));
      report();
    },
    end(runId) {
      if (byRun.delete(runId)) report();
    },
  };
}
