import type { PluginContext } from "../../core/index.js";

/** What a plugin cannot do for single runs. It is degraded for as long as one of them lives. */
export interface PerRunHealth {
  add(runId: string, fault: string): void;
  /** The run is over, and its faults with it. */
  end(runId: string): void;
}

/** The others are counted. */
const MOST_NAMED = 3;

export function createPerRunHealth(
  daemon: Pick<PluginContext["daemon"], "degraded" | "recovered">,
): PerRunHealth {
  const byRun = new Map<string, Set<string>>();

  function tell() {
    const all = [...byRun.values()].flatMap((faults) => [...faults]);
    if (all.length === 0) return daemon.recovered();
    const more = all.length - MOST_NAMED;
    daemon.degraded(all.slice(0, MOST_NAMED).join("; ") + (more > 0 ? `; and ${more} more` : ""));
  }

  return {
    add(runId, fault) {
      byRun.set(runId, (byRun.get(runId) ?? new Set()).add(fault));
      tell();
    },
    end(runId) {
      if (byRun.delete(runId)) tell();
    },
  };
}
