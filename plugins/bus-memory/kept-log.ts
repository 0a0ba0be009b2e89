import type { BusMessage } from "../../core/index.js";
import { topicMatches } from "../_shared/topics.js";

export interface KeptLogOptions {
  maxMessages: number;
  maxBytes: number;
  /** What the first message's position is. */
  first: number;
}

export type KeptLog = ReturnType<typeof createKeptLog>;

/** The kept messages in their order, at rising positions. The oldest make room; the newest always stays. */
export function createKeptLog({ maxMessages, maxBytes, first }: KeptLogOptions) {
  const kept = new Map<number, BusMessage>();
  let newest = first - 1;
  let bytes = 0;

  function remove(position: number, message: BusMessage): void {
    kept.delete(position);
    bytes -= bytesOf(message);
  }

  function makeRoom(): void {
    for (const [position, message] of kept) {
      if ((kept.size <= maxMessages && bytes <= maxBytes) || kept.size === 1) return;
      remove(position, message);
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
    drop(filter: string): void {
      for (const [position, message] of kept) {
        if (topicMatches(filter, message.topic)) remove(position, message);
      }
    },
    /** The first message for this filter after one position, up to and including another. */
    find(filter: string, after: number, upTo: number) {
      // For one who is far behind, where positions may be missing; else the few that are new.
      const positions = upTo - after > kept.size ? kept.keys() : range(after + 1, upTo);
      for (const position of positions) {
        if (position > upTo) break;
        const message = position > after ? kept.get(position) : undefined;
        if (message && topicMatches(filter, message.topic)) return { position, message };
      }
      return undefined;
    },
  };
}

export function bytesOf({ topic, payload }: BusMessage): number {
  return topic.length + payload.byteLength;
}

function* range(from: number, to: number): Generator<number> {
  for (let at = from; at <= to; at++) yield at;
}
