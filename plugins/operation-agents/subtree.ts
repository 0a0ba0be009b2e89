import type { DaemonEvent, Principal } from "../../core/index.js";
import { type HistorySources, incarnationReader } from "./why/incarnations.js";

/**
 * Tells which events an agent may be told: its own, and those of what it started, directly or through
 * others. Of agents that are gone the journal knows below whom they were. Of agents that had the same id
 * one after the other, an event is of the one that lived then, and only the one that asks now is itself.
 */
async function createSubtreeFilter(sources: HistorySources, self: string) {
  const lifeAt = incarnationReader(sources);
  const own = await lifeAt(self);

  return async (event: DaemonEvent): Promise<boolean> => {
    const seen = new Set<string>();
    let at = event.id;
    for (let id = event.agent_id; id !== undefined && !seen.has(id); ) {
      const life = await lifeAt(id, at);
      if (!life || id === self) return life !== undefined && life.from === own?.from;
      seen.add(id);
      id = life.parentId;
      // One that lives knows its parent of now; of one that is gone the journal knows that of its creation.
      at = life.current ? Number.POSITIVE_INFINITY : life.from;
    }
    return false;
  };
}

/** Everything for those who may see everything. */
export async function eventFilterFor(
  principal: Principal,
  sources: HistorySources,
): Promise<(event: DaemonEvent) => boolean | Promise<boolean>> {
  if (principal.kind === "agent") return createSubtreeFilter(sources, principal.agentId);
  return () => principal.kind !== "anonymous";
}

/** The id of the first event of this agent that the principal may read: an agent, none of a former one. */
export async function visibleFrom(
  agentId: string,
  principal: Principal,
  sources: HistorySources,
): Promise<number> {
  if (principal.kind !== "agent") return 0;
  const newest = sources.journal.lastEventId();
  const life = await incarnationReader(sources)(agentId);
  return life?.current ? life.from : newest + 1;
}
