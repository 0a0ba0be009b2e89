import type { DaemonEvent, JournalAccess } from "../../../core/index.js";

/** The size of the first part of the journal that is searched, in events of all agents; each further part is larger. */
const FIRST_PART = 512;
const GROWTH = 4;
const PAGE = 500;
/** The number of events of one agent, without heartbeats, after which the search ends: exit reasons have the figures too. */
const MAX_EVENTS = 2_000;

/**
 * Reads the events of an agent's newest runs, oldest first, without heartbeats. The journal is read backwards until
 * there is an event of the agent that belongs to none of these runs: it is older.
 */
export async function eventsOfRuns(
  journal: Pick<JournalAccess, "events" | "lastEventId">,
  agentId: string,
  runIds: readonly string[],
): Promise<DaemonEvent[]> {
  let found: DaemonEvent[] = [];
  let read = 0;
  let upTo = runIds.length > 0 ? journal.lastEventId() : 0;
  for (let part = FIRST_PART; upTo > 0 && read < MAX_EVENTS; part *= GROWTH) {
    const after = Math.max(0, upTo - part);
    const events = await readBetween(journal, agentId, after, upTo);
    const wanted = events.filter(({ run_id = "" }) => runIds.includes(run_id));
    found = [...wanted.filter(isNoHeartbeat), ...found];
    read += events.filter(isNoHeartbeat).length;
    upTo = wanted.length < events.length ? 0 : after;
  }
  return found;
}

function isNoHeartbeat({ type }: DaemonEvent): boolean {
  return type !== "agent.heartbeat";
}

async function readBetween(
  journal: Pick<JournalAccess, "events">,
  agentId: string,
  after: number,
  upTo: number,
): Promise<DaemonEvent[]> {
  const found: DaemonEvent[] = [];
  for (let from = after; from < upTo; ) {
    const { events } = await journal.events({ after: from, limit: PAGE, agentId });
    found.push(...events.filter(({ id }) => id <= upTo));
    from = events.length < PAGE ? upTo : (events.at(-1)?.id ?? upTo);
  }
  return found;
}
