import type { BusMessage } from "../../core/index.js";
import { topicMatches } from "../_shared/topics.js";

export interface KeptLogOptions {
  maxMessages: number;
  maxBytes: number;
  /** What the first message's position is. */
  first: number;
}

export type KeptLog = ReturnType<typeof createKeptLog>;

/** The kept messages in their order, at consecutive positions. The oldest make room; the newest always stays. */
export function createKeptLog({ maxMessages, maxBytes, first }: KeptLogOptions) {
  const kept = new Map<number, BusMessage>();
  let oldest = first;
  let newest = first - 1;
  let bytes = 0;

  function makeRoom(): void {
    for (const [position, message] of kept) {
      if ((kept.size <= maxMessages && bytes <= maxBytes) || kept.size === 1) return;
      kept.delete(position);
      bytes -= bytesOf(message);
      oldest = position + 1;
    }
  }

  return {
    newest: () => newest,
    count: () => kept.size,
    at: (position: number) => kept.get(position),
    append(message: BusMessage): BusMessage {
      newest += 1;
      const placed = { ...message, position: String(newest) };
      kept.set(newest, placed);
      bytes += bytesOf(placed);
      makeRoom();
      return placed;
    },
    /** The first message for this filter after one position, up to and including another. */
    find(filter: string, after: number, upTo: number) {
      for (let position = Math.max(after + 1, oldest); position <= upTo; position++) {
        const message = kept.get(position);
        if (message && topicMatches(filter, message.topic)) return { position, message };
      }
      return undefined;
    },
  };
}

export function bytesOf({ topic, payload }: BusMessage): number {
  return topic.length + payload.byteLength;
}
