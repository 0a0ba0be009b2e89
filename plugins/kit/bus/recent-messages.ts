import type { BusMessage } from "../../../core/index.js";
import { topicMatches } from "../topics.js";
import type { Found } from "./storage.js";

export interface RecentOptions {
  maxMessages: number;
  maxBytes: number;
  /** All that is kept after this position is added. */
  after: number;
}

/** The newest kept messages, in memory. The oldest make room; the newest always stays. */
export function createRecentMessages({ maxMessages, maxBytes, after: begin }: RecentOptions) {
  const kept = new Map<number, BusMessage>();
  let floor = begin;
  let bytes = 0;

  function remove(position: number, message: BusMessage): void {
    kept.delete(position);
    bytes -= bytesOf(message);
  }

  function makeRoom(): void {
    for (const [position, message] of kept) {
      if ((kept.size <= maxMessages && bytes <= maxBytes) || kept.size === 1) return;
      remove(position, message);
      floor = position;
    }
  }

  return {
    count: () => kept.size,
    /** All kept messages after this position are here. */
    floor: () => floor,
    at: (position: number) => kept.get(position),
    /** Its position is greater than those of all before. */
    add(position: number, message: BusMessage): void {
      kept.set(position, message);
      bytes += bytesOf(message);
      makeRoom();
    },
    drop(filter: string): void {
      for (const [position, message] of kept) {
        if (topicMatches(filter, message.topic)) remove(position, message);
      }
    },
    find(filter: string, after: number, upTo: number): Found {
      // For one who is far behind, where positions may be missing; else the few that are new.
      const positions = upTo - after > kept.size ? kept.keys() : range(after + 1, upTo);
      for (const position of positions) {
        if (position > upTo) break;
        const message = position > after ? kept.get(position) : undefined;
        if (message && topicMatches(filter, message.topic)) return { position, message };
      }
      return { position: upTo };
    },
  };
}

export function bytesOf({ topic, payload }: BusMessage): number {
  return topic.length + payload.byteLength;
}

function* range(from: number, to: number): Generator<number> {
  for (let at = from; at <= to; at++) yield at;
}
