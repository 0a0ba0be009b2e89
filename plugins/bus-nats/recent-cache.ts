import type { BusMessage } from "../../core/index.js";
import { bytesOf } from "../kit/bus/recent-messages.js";
import { topicMatches } from "../kit/topics.js";

const MAX_MESSAGES = 256;
const MAX_BYTES = 4 * 2 ** 20;

export interface Found {
  sequence: number;
  message: BusMessage;
}

export type RecentCache = ReturnType<typeof createRecentCache>;

/**
 * Creates the cache of the stream's newest messages, without gaps, so that readers that keep up need not ask the
 * server. It also knows how far the stream has come.
 */
export function createRecentCache() {
  let recent: BusMessage[] = [];
  let bytes = 0;
  let lastSequence = 0;
  /** Messages up to this sequence are not cached. */
  let skippedUpTo = 0;

  function clear(upTo: number): void {
    recent = [];
    bytes = 0;
    skippedUpTo = Math.max(skippedUpTo, upTo);
  }

  return {
    lastSequence: () => lastSequence,
    /** Returns whether the cache has every message behind this sequence. */
    covers: (after: number) => after >= lastSequence - recent.length,
    /** Removes all messages, and ignores those up to this sequence that are still to come: some were deleted. */
    clear,
    /** Notes that the stream has come to this sequence, without the messages before it. */
    advance(sequence: number): void {
      if (sequence <= lastSequence) return;
      clear(sequence);
      lastSequence = sequence;
    },
    append(sequence: number, message: BusMessage): void {
      if (sequence <= lastSequence) return;
      // After a gap the cache starts from empty.
      if (sequence !== lastSequence + 1) clear(lastSequence);
      lastSequence = sequence;
      if (sequence <= skippedUpTo) return;
      recent.push(message);
      bytes += bytesOf(message);
      while (recent.length > MAX_MESSAGES || (bytes > MAX_BYTES && recent.length > 1)) {
        bytes -= bytesOf(recent.shift() as BusMessage);
      }
    },
    /** Finds the first message that matches a filter behind one sequence, up to and including another. */
    find(filter: string, after: number, upTo: number): Found | undefined {
      const first = lastSequence - recent.length + 1;
      for (let sequence = Math.max(after + 1, first); sequence <= Math.min(upTo, lastSequence); sequence++) {
        const message = recent[sequence - first];
        if (message && topicMatches(filter, message.topic)) return { sequence, message };
      }
      return undefined;
    },
  };
}
