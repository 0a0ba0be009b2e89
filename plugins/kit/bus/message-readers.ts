import type { BusMessage, SubscribeOptions } from "../../../core/index.js";
import { topicMatches } from "../topics.js";
import { createSignal, type Signal } from "./signal.js";
import type { MessageLog } from "./storage.js";
import {
  type Backlog,
  createBacklog,
  createTransientMessages,
  type TransientMessage,
} from "./transient-messages.js";

interface Reader {
  filter: string;
  changed: Signal;
  /** The reader has seen every matching kept message up to this offset. */
  cursor: number;
  backlog: Backlog;
}

/** Creates the subscribers of a bus. Each reads kept messages from the log, with transient ones in their places. */
export function createMessageReaders(log: MessageLog, assertRunning: () => void) {
  const readers = new Set<Reader>();
  const transient = createTransientMessages();

  function next(reader: Reader): BusMessage | undefined {
    const { filter, cursor, backlog } = reader;
    const transientAfter = backlog.waiting[0]?.afterOffset ?? Number.POSITIVE_INFINITY;
    const { offset, message } = log.find(filter, cursor, Math.min(transientAfter, log.readableUpTo()));
    reader.cursor = Math.max(cursor, offset);
    if (message) return message;
    return reader.cursor >= transientAfter ? transient.take(backlog) : undefined;
  }

  return {
    /** Yields the messages behind an offset; without one, new messages. */
    async *read({ filter, signal }: SubscribeOptions, after?: number): AsyncGenerator<BusMessage> {
      const changed = createSignal();
      const reader: Reader = { filter, changed, cursor: after ?? log.lastOffset(), backlog: createBacklog() };
      readers.add(reader);
      signal.addEventListener("abort", changed.notify);
      try {
        while (!signal.aborted) {
          assertRunning();
          const message = next(reader);
          if (message) yield message;
          else await (reader.cursor < log.readableUpTo() ? yieldToEventLoop() : changed.wait());
        }
      } finally {
        readers.delete(reader);
        transient.clear(reader.backlog);
        signal.removeEventListener("abort", changed.notify);
      }
    },
    /** Hands a message with `keep: false` to the readers of now. */
    publishTransient(message: BusMessage): void {
      const added: TransientMessage = { message, afterOffset: log.lastOffset(), readers: 0 };
      for (const { filter, backlog, changed } of readers) {
        if (!topicMatches(filter, message.topic)) continue;
        transient.add(backlog, added);
        changed.notify();
      }
    },
    notifyAll(): void {
      for (const { changed } of readers) changed.notify();
    },
  };
}

/** Lets other tasks run between two searches of a reader that is far behind. */
export function yieldToEventLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
