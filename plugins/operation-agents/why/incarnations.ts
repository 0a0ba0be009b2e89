import type { AgentLookup, DaemonEvent, JournalAccess } from "../../../core/index.js";

/** What the histories are read from. */
export interface HistorySources {
  agents: Pick<AgentLookup, "get">;
  journal: Pick<JournalAccess, "events" | "lastEventId">;
}

/** One of the agents that had an ID one after the other. */
export interface Incarnation {
  /** The ID of its `agent.created` event; 0 if that was pruned, along with everything before it. */
  from: number;
  /** Its parent: the current one for an existing agent, otherwise the one at its creation. */
  parentId: string | undefined;
  /** Whether it is the agent that has the ID now. */
  current: boolean;
}

interface Span {
  from: number;
  /** The ID of its `agent.deleted` event. */
  to?: number;
  parentId: string | undefined;
}

/** The agents of one ID, oldest first, as far as the journal was read. */
interface History {
  spans: Span[];
  readThrough: number;
  /** `created_at` of the existing agent that the last span belongs to, once that is known. */
  lastCreatedAt?: string;
}

const PAGE = 500;

/**
 * Makes a function that finds the agent an event belongs to among those that had its ID. It goes by the order of
 * events, which clock changes cannot affect. Without `at` it answers the newest. The part of the journal that was read
 * is kept for the next call.
 */
export function incarnationReader(
  sources: HistorySources,
): (agentId: string, at?: number) => Promise<Incarnation | undefined> {
  const { agents } = sources;
  const histories = new Map<string, History>();

  return async (agentId, at = Number.POSITIVE_INFINITY) => {
    const history = histories.get(agentId) ?? { spans: [], readThrough: 0 };
    histories.set(agentId, history);
    const before = agents.get(agentId)?.created_at;
    if (before === undefined || before !== history.lastCreatedAt)
      await readFurther(sources, agentId, history, at);
    const agent = agents.get(agentId);
    const last = history.spans.at(-1);
    // An agent that is being created has no event yet: the last span belongs to the one before, which has an end.
    if (agent && agent.created_at === before && last?.to === undefined) {
      history.lastCreatedAt = before;
      if (!last) history.spans.push({ from: 0, parentId: undefined });
    }
    const span = history.spans.findLast(({ from }) => from <= at);
    if (!span) return undefined;
    const current =
      agent !== undefined && agent.created_at === history.lastCreatedAt && span === history.spans.at(-1);
    return { from: span.from, parentId: current ? agent.parent_id : span.parentId, current };
  };
}

async function readFurther(
  { agents, journal }: HistorySources,
  agentId: string,
  history: History,
  at: number,
): Promise<void> {
  // Only reading to the end can tell this agent from a later one with the same ID.
  const through = agents.get(agentId) ? journal.lastEventId() : Math.min(at, journal.lastEventId());
  while (history.readThrough < through) {
    const { events } = await journal.events({ after: history.readThrough, limit: PAGE, agentId });
    for (const event of events) addToSpans(history.spans, event);
    history.readThrough = Math.max(events.at(-1)?.id ?? 0, events.length < PAGE ? through : 0);
  }
}

function addToSpans(spans: Span[], { id, type, data }: DaemonEvent): void {
  if (type === "agent.created") {
    spans.push({ from: id, parentId: typeof data.parent_id === "string" ? data.parent_id : undefined });
  } else if (type === "agent.deleted") {
    const open = spans.at(-1);
    if (open && open.to === undefined) open.to = id;
    else spans.push({ from: 0, to: id, parentId: undefined });
  }
}
