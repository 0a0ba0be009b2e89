import type { BusMessage } from "../../core/index.js";
import { bytesOf } from "../kit/bus/recent-messages.js";
import { createSignal, type Signal } from "../kit/bus/signal.js";
import { topicMatches } from "../kit/topics.js";
import type { Session } from "./session.js";

/** Limits of the transient messages that wait for one slow reader. Above them, it loses the oldest. */
const MAX_TRANSIENT = 1_000;
const MAX_TRANSIENT_BYTES = 4 * 2 ** 20;

export interface Reader {
  filter: string;
  changed: Signal;
  /** Messages with `keep: false`, each with its place: behind the kept messages up to a sequence. */
  transient: { message: BusMessage; afterSequence: number }[];
  transientBytes: number;
}

/** Creates the subscribers of the bus. They read kept messages from the stream; transient ones wait here. */
export function createMessageReaders() {
  const readers = new Set<Reader>();

  return {
    join(filter: string): Reader {
      const reader: Reader = { filter, changed: createSignal(), transient: [], transientBytes: 0 };
      readers.add(reader);
      return reader;
    },
    leave: (reader: Reader) => readers.delete(reader),
    notifyAll(): void {
      for (const { changed } of readers) changed.notify();
    },
    addTransient(message: BusMessage, afterSequence: number): void {
      for (const reader of readers) {
        if (!topicMatches(reader.filter, message.topic)) continue;
        reader.transient.push({ message, afterSequence });
        reader.transientBytes += bytesOf(message);
        while (reader.transient.length > MAX_TRANSIENT || reader.transientBytes > MAX_TRANSIENT_BYTES) {
          shiftTransient(reader);
        }
        reader.changed.notify();
      }
    },
  };
}

/** Yields all messages for a reader behind a sequence, kept and transient ones in order. */
export async function* readMessages(
  reader: Reader,
  session: Session,
  after: number,
  signal: AbortSignal,
): AsyncGenerator<BusMessage> {
  const { filter, changed, transient } = reader;
  const { recent } = session;
  let cursor = after;
  while (!signal.aborted) {
    session.assertOpen();
    const transientAfter = transient[0]?.afterSequence ?? Number.POSITIVE_INFINITY;
    const upTo = Math.min(transientAfter, recent.lastSequence());
    if (cursor < upTo) {
      const found = await session.find(filter, cursor, upTo);
      cursor = found?.sequence ?? upTo;
      if (found && !signal.aborted) yield found.message;
    } else if (transientAfter <= cursor) {
      yield shiftTransient(reader) as BusMessage;
    } else {
      await changed.wait();
    }
  }
}

function shiftTransient(reader: Reader): BusMessage | undefined {
  const message = reader.transient.shift()?.message;
  if (message) reader.transientBytes -= bytesOf(message);
  return message;
}
