import type { DaemonEvent, JournalAccess, StreamItem } from "../../core/index.js";

export interface EventSourceOptions {
  journal: Pick<JournalAccess, "events" | "lastEventId">;
  /** Calls back for every event from now on; the returned function ends it. */
  onEvent: (listener: (event: DaemonEvent) => void) => () => void;
  /** Only what came after this event. */
  after: number;
  /** Read from the journal's index where it is given. */
  agentId?: string;
  wanted: (event: DaemonEvent) => boolean | Promise<boolean>;
  signal: AbortSignal;
}

const PAGE = 500;
/** What may wait for a slow reader; beyond it the journal is read instead. */
const MAX_WAITING = 1_000;

/**
 * Every event after a point, and then those that happen, each once and in order. The live ones are
 * listened to before the journal is read, so that none falls between; a reader too slow for them is
 * sent back to the journal. Where events were pruned before they could be told, a `gap` is told.
 */
export async function* eventSource(options: EventSourceOptions): AsyncGenerator<StreamItem> {
  const { journal, agentId, wanted } = options;
  const live = createLiveQueue(options);
  let position = options.after;

  async function* tell(event: DaemonEvent): AsyncGenerator<StreamItem> {
    if (event.id <= position) return;
    position = event.id;
    if (await wanted(event)) yield { id: String(event.id), event: event.type, data: event };
  }

  async function* fromJournal(): AsyncGenerator<StreamItem> {
    for (;;) {
      const newest = journal.lastEventId();
      const query = { after: position, limit: PAGE, ...(agentId === undefined ? {} : { agentId }) };
      const { events, gap } = await journal.events(query);
      if (gap) yield gapItem(position, events[0]?.id ?? newest + 1);
      for (const event of events) yield* tell(event);
      if (events.length === PAGE) continue;
      // What is not of this agent has been passed as well.
      position = Math.max(position, newest);
      return;
    }
  }

  // Where it stands is told at once: a stream that breaks before the first event resumes there.
  yield { id: String(position) };
  try {
    for (;;) {
      const next = await live.next();
      if (next === "over") return;
      yield* next === "behind" ? fromJournal() : tell(next);
    }
  } finally {
    live.close();
  }
}

/** What happens, as far as it could be kept for the one who reads it. */
interface LiveQueue {
  /** `behind`: the journal has to be read, at first and whenever too much came. `over`: nobody reads. */
  next(): Promise<DaemonEvent | "behind" | "over">;
  close(): void;
}

function createLiveQueue({ onEvent, signal }: EventSourceOptions): LiveQueue {
  let waiting: DaemonEvent[] = [];
  let behind = true;
  let wake = () => {};

  const stopListening = onEvent((event) => {
    if (waiting.length >= MAX_WAITING) {
      behind = true;
      waiting = [];
    }
    if (!behind) waiting.push(event);
    wake();
  });
  const aborted = () => wake();
  signal.addEventListener("abort", aborted, { once: true });

  return {
    async next() {
      while (!signal.aborted) {
        if (behind) {
          behind = false;
          return "behind";
        }
        const event = waiting.shift();
        if (event) return event;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return "over";
    },
    close() {
      stopListening();
      signal.removeEventListener("abort", aborted);
    },
  };
}

/** Its id is the last that was lost: a stream that resumes there meets no gap again. */
function gapItem(after: number, next: number): StreamItem {
  return { id: String(next - 1), event: "gap", data: { type: "gap", after, next } };
}
