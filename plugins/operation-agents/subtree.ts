import type { AgentCommands, DaemonEvent, Principal } from "../../core/index.js";

type Journal = Pick<AgentCommands, "get" | "events">;

/** When an agent came into being, and below whom. */
interface Creation {
  eventId: number;
  parentId: string | undefined;
}

/** The creations of agents of one id, as far as the journal was read. */
interface History {
  creations: Creation[];
  readThrough: number;
}

const PAGE = 500;

/**
 * Tells which events an agent may be told: its own, and those of what it started, directly or through
 * others. Of agents that are gone the journal knows below whom they were.
 */
function createSubtreeFilter(agents: Journal, self: string) {
  const histories = new Map<string, History>();

  async function parentOf(agentId: string, event: DaemonEvent): Promise<string | undefined> {
    const agent = agents.get(agentId);
    // Of two agents that had the same id one after the other, the event is of the one that lived then.
    if (agent && agent.created_at < event.at) return agent.parent_id;
    const history = histories.get(agentId) ?? { creations: [], readThrough: 0 };
    histories.set(agentId, history);
    if (history.readThrough < event.id) await readOn(agents, agentId, history, event.id);
    return history.creations.findLast(({ eventId }) => eventId <= event.id)?.parentId;
  }

  return async (event: DaemonEvent): Promise<boolean> => {
    const seen = new Set<string>();
    for (let id = event.agent_id; id !== undefined && !seen.has(id); id = await parentOf(id, event)) {
      if (id === self) return true;
      seen.add(id);
    }
    return false;
  };
}

async function readOn(agents: Journal, agentId: string, history: History, through: number): Promise<void> {
  while (history.readThrough < through) {
    const { events } = await agents.events({ after: history.readThrough, limit: PAGE, agentId });
    for (const { id, type, data } of events) {
      if (type !== "agent.created") continue;
      const parentId = typeof data.parent_id === "string" ? data.parent_id : undefined;
      history.creations.push({ eventId: id, parentId });
    }
    history.readThrough = Math.max(events.at(-1)?.id ?? 0, events.length < PAGE ? through : 0);
  }
}

/** Everything for those who may see everything. */
export function eventFilterFor(
  principal: Principal,
  agents: Journal,
): (event: DaemonEvent) => boolean | Promise<boolean> {
  if (principal.kind === "agent") return createSubtreeFilter(agents, principal.agentId);
  return () => principal.kind !== "anonymous";
}
