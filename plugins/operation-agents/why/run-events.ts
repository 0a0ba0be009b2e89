import type { DaemonEvent, JournalAccess } from "../../../core/index.js";

/** The first stretch of the journal that is looked through, in events of all agents; each further one is larger. */
const FIRST_STRETCH = 512;
const GROWTH = 4;
const PAGE = 500;
/**
 * Of one agent, less heartbeats. What is older than so many is not looked for: the reasons of ends have their
 * figures.
 */
const MOST_EVENTS = 2_000;

/**
 * What the journal tells of the newest runs of an agent, oldest first, less heartbeats. It is read
 * backwards, as far as these runs go: what is of the agent and of none of them is older.
 */
export async function eventsOfRuns(
  journal: Pick<JournalAccess, "events" | "lastEventId">,
  agentId: string,
  runIds: readonly string[],
): Promise<DaemonEvent[]> {
  let found: DaemonEvent[] = [];
  let read = 0;
  let upTo = runIds.length > 0 ? journal.lastEventId() : 0;
  for (let stretch = FIRST_STRETCH; upTo > 0 && read < MOST_EVENTS; stretch *= GROWTH) {
    const after = Math.max(0, upTo - stretch);
    const events = await readBetween(journal, agentId, after, upTo);
    const wanted = events.filter(({ run_id = "" }) => runIds.includes(run_id));
    found = [...wanted.filter(isNoBeat), ...found];
    read += events.filter(isNoBeat).length;
    upTo = wanted.length < events.length ? 0 : after;
  }
  return found;
}

function isNoBeat({ type }: DaemonEvent): boolean {
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
