import type { BusMessage } from "../../core/index.js";
import { topicMatches } from "../kit/topics.js";
import { bytesOf } from "./messages.js";

const MAX_MESSAGES = 256;
const MAX_BYTES = 4 * 2 ** 20;

export interface Found {
  sequence: number;
  message: BusMessage;
}

export type Tail = ReturnType<typeof createTail>;

/**
 * The end of the stream, as it comes: how far it has got, and the last messages without a gap, so that readers
 * who keep up ask the server for nothing.
 */
export function createTail() {
  let recent: BusMessage[] = [];
  let bytes = 0;
  let last = 0;
  /** What comes up to this sequence is not held. */
  let skipped = 0;

  function forget(upTo: number): void {
    recent = [];
    bytes = 0;
    skipped = Math.max(skipped, upTo);
  }

  return {
    last: () => last,
    /** Whether it holds all that there is after this sequence. */
    covers: (after: number) => after >= last - recent.length,
    /** Holds nothing of what is in the stream up to now, which is up to this sequence: some of it was removed. */
    forget,
    /** So far the stream has got, as the server says. */
    reach(sequence: number): void {
      if (sequence <= last) return;
      forget(sequence);
      last = sequence;
    },
    append(sequence: number, message: BusMessage): void {
      if (sequence <= last) return;
      if (sequence !== last + 1) forget(last);
      last = sequence;
      if (sequence <= skipped) return;
      recent.push(message);
      bytes += bytesOf(message);
      while (recent.length > MAX_MESSAGES || (bytes > MAX_BYTES && recent.length > 1)) {
        bytes -= bytesOf(recent.shift() as BusMessage);
      }
    },
    /** The first message for this filter after one sequence, up to and including another. */
    find(filter: string, after: number, upTo: number): Found | undefined {
      const first = last - recent.length + 1;
      for (let sequence = Math.max(after + 1, first); sequence <= Math.min(upTo, last); sequence++) {
        const message = recent[sequence - first];
        if (message && topicMatches(filter, message.topic)) return { sequence, message };
      }
      return undefined;
    },
  };
}
