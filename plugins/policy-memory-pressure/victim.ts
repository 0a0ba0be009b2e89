import type { Agent, ResourceSample } from "../../core/index.js";

/** From this priority on an agent is never made to wait, and never stopped for others. */
export const PINNED = 1_000;

/** So long a past counts for what an agent does now, in milliseconds. */
const MEMORY_MS = 60_000;

/** What the runs have done of late: the mean of their CPU, in which the last minute outweighs what was before. */
export interface Activity {
  see(samples: readonly ResourceSample[], nowMs: number): void;
  /** In percent of one core; 0 where nothing was measured. */
  cpuOf(runId: string | undefined): number;
}

export function createActivity(): Activity {
  let means = new Map<string, number>();
  let lastMs = 0;
  return {
    see(samples, nowMs) {
      const weight = 1 - Math.exp((lastMs - nowMs) / MEMORY_MS);
      lastMs = nowMs;
      // Runs that are over are forgotten with it.
      means = new Map(
        samples.map(({ run_id, cpu_percent }) => {
          const before = means.get(run_id) ?? cpu_percent;
          return [run_id, before + (cpu_percent - before) * weight];
        }),
      );
    },
    cpuOf: (runId = "") => means.get(runId) ?? 0,
  };
}

/**
 * Who goes first: the lowest priority; of those who does least, to a whole percent; of those who takes most
 * memory; of those the youngest, which has least to lose. Agents of priority 1000 never go.
 */
export function chooseVictim(
  candidates: readonly Agent[],
  { priorityOf, cpuOf }: { priorityOf: (agentId: string) => number; cpuOf: Activity["cpuOf"] },
): Agent | undefined {
  const ranked = candidates
    .map((agent) => ({
      agent,
      ranks: [
        priorityOf(agent.agent_id),
        Math.round(cpuOf(agent.run_id)),
        -(agent.resources?.memory_bytes ?? 0),
        -Date.parse(agent.started_at ?? agent.created_at),
      ],
    }))
    .filter(({ ranks: [priority = 0] }) => priority < PINNED);
  ranked.sort((left, right) => {
    const at = left.ranks.findIndex((rank, index) => rank !== right.ranks[index]);
    return at < 0 ? 0 : (left.ranks[at] ?? 0) - (right.ranks[at] ?? 0);
  });
  return ranked[0]?.agent;
}
