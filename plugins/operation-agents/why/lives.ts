import type { AgentLookup, DaemonEvent, JournalAccess } from "../../../core/index.js";

/** Where a history is read from. */
export interface HistorySources {
  agents: Pick<AgentLookup, "get">;
  journal: Pick<JournalAccess, "events" | "lastEventId">;
}

/** The time of one agent among those that had its id. */
export interface Life {
  /** The id of its `agent.created`; 0 when that was pruned, and with it all that came before. */
  from: number;
  /** The agent above it: as of now for one that lives, else as of its creation. */
  parentId: string | undefined;
  /** Whether it is the agent that has the id now. */
  current: boolean;
}

interface Span {
  from: number;
  /** The id of its `agent.deleted`. */
  to?: number;
  parentId: string | undefined;
}

/** The agents of one id, oldest first, as far as the journal was read. */
interface History {
  spans: Span[];
  readThrough: number;
  /** `created_at` of the live agent that the last span is known to be of. */
  lastIs?: string;
}

const PAGE = 500;

/**
 * Tells of which agent of an id an event is, by the order of events, which no change of the clock can
 * mix up. Without `at`: the newest. What was read of the journal is kept for the next question.
 */
export function lifeReader(
  sources: HistorySources,
): (agentId: string, at?: number) => Promise<Life | undefined> {
  const { agents } = sources;
  const histories = new Map<string, History>();

  return async (agentId, at = Number.POSITIVE_INFINITY) => {
    const history = histories.get(agentId) ?? { spans: [], readThrough: 0 };
    histories.set(agentId, history);
    const before = agents.get(agentId)?.created_at;
    if (before === undefined || before !== history.lastIs) await readOn(sources, agentId, history, at);
    const agent = agents.get(agentId);
    const last = history.spans.at(-1);
    // One that is being created is in no event yet: the last span is of the one before, which has an end.
    if (agent && agent.created_at === before && last?.to === undefined) {
      history.lastIs = before;
      if (!last) history.spans.push({ from: 0, parentId: undefined });
    }
    const span = history.spans.findLast(({ from }) => from <= at);
    if (!span) return undefined;
    const current =
      agent !== undefined && agent.created_at === history.lastIs && span === history.spans.at(-1);
    return { from: span.from, parentId: current ? agent.parent_id : span.parentId, current };
  };
}

async function readOn(
  { agents, journal }: HistorySources,
  agentId: string,
  history: History,
  at: number,
): Promise<void> {
  // A later agent of the id can only be told from this one by reading to the end.
  const through = agents.get(agentId) ? journal.lastEventId() : Math.min(at, journal.lastEventId());
  while (history.readThrough < through) {
    const { events } = await journal.events({ after: history.readThrough, limit: PAGE, agentId });
    for (const event of events) note(history.spans, event);
    history.readThrough = Math.max(events.at(-1)?.id ?? 0, events.length < PAGE ? through : 0);
  }
}

function note(spans: Span[], { id, type, data }: DaemonEvent): void {
  if (type === "agent.created") {
    spans.push({ from: id, parentId: typeof data.parent_id === "string" ? data.parent_id : undefined });
  } else if (type === "agent.deleted") {
    const open = spans.at(-1);
    if (open && open.to === undefined) open.to = id;
    else spans.push({ from: 0, to: id, parentId: undefined });
  }
}
