import type { BusMessage } from "../../core/index.js";
import { createSignal } from "../kit/bus/signal.js";
import type { Commands } from "./commands.js";
import { createTopicMatcher, luaPatternOf } from "./topic-patterns.js";

export interface MessageReaderOptions {
  filter: string;
  /** The position behind which to start. Absent: new messages only. */
  after?: number | undefined;
  read: Commands["read"];
}

export type MessageReader = ReturnType<typeof createMessageReader>;

/** Limits of the transient messages that wait for one slow reader. Above them, it loses the oldest. */
const MAX_TRANSIENT = 1_000;
const MAX_TRANSIENT_BYTES = 4 * 2 ** 20;

/**
 * Creates one subscriber. It is notified of kept messages, and fetches them in batches when it is asked for them.
 * Transient messages are handed to it, each with its place: behind the kept messages up to a position.
 */
export function createMessageReader({ filter, after, read }: MessageReaderOptions) {
  const pattern = luaPatternOf(filter);
  const matches = createTopicMatcher(filter);
  const transient: { message: BusMessage; afterPosition: number }[] = [];
  let transientBytes = 0;
  let fetched: BusMessage[] = [];
  let hasStarted = false;
  /** The reader has seen every matching kept message up to this position. */
  let cursor = 0;
  /** The position of the newest kept message that may match. */
  let newest = 0;
  let failure: Error | undefined;
  let isOver = false;
  const changed = createSignal();

  function shiftTransient(): BusMessage | undefined {
    const message = transient.shift()?.message;
    transientBytes -= message?.payload.byteLength ?? 0;
    return message;
  }

  return {
    matches,
    /** Starts the reader: its start has reached the server, where `last` was the last position. */
    start(last: number): void {
      hasStarted = true;
      newest = last;
      // A position from a clock that was ahead: every message of this bus counts as later.
      cursor = after === undefined ? last : after > last ? 0 : after;
      changed.notify();
    },
    onKept(topic: string, position: number): void {
      if (!hasStarted) return;
      if (matches(topic)) {
        newest = position;
        changed.notify();
      } else if (cursor >= newest) cursor = position;
    },
    onTransient(message: BusMessage, afterPosition: number): void {
      if (!hasStarted) return;
      transient.push({ message, afterPosition });
      transientBytes += message.payload.byteLength;
      while (transient.length > MAX_TRANSIENT || transientBytes > MAX_TRANSIENT_BYTES) shiftTransient();
      changed.notify();
    },
    fail(error: Error): void {
      failure ??= error;
      changed.notify();
    },
    end(): void {
      isOver = true;
      changed.notify();
    },
    /** Resolves with the next message; with `undefined` after `end`. */
    async next(): Promise<BusMessage | undefined> {
      for (;;) {
        if (isOver) return undefined;
        if (failure) throw failure;
        const upTo = Math.min(newest, transient[0]?.afterPosition ?? newest);
        const message = fetched.shift() ?? (cursor < upTo ? undefined : shiftTransient());
        if (message) return message;
        if (cursor < upTo) ({ cursor, messages: fetched } = await read(cursor, upTo, pattern));
        else await changed.wait();
      }
    },
  };
}
