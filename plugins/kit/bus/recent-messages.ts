import type { BusMessage } from "../../../core/index.js";
import { topicMatches } from "../topics.js";
import type { FindResult } from "./storage.js";

export interface RecentMessagesOptions {
  maxMessages: number;
  maxBytes: number;
  /** Every kept message behind this offset will be added. */
  after: number;
}

/** Creates a cache of the newest kept messages. It evicts the oldest ones, but never the newest. */
export function createRecentMessages({ maxMessages, maxBytes, after }: RecentMessagesOptions) {
  const messages = new Map<number, BusMessage>();
  let completeAfter = after;
  let bytes = 0;

  function remove(offset: number, message: BusMessage): void {
    messages.delete(offset);
    bytes -= bytesOf(message);
  }

  function evict(): void {
    for (const [offset, message] of messages) {
      if ((messages.size <= maxMessages && bytes <= maxBytes) || messages.size === 1) return;
      remove(offset, message);
      completeAfter = offset;
    }
  }

  return {
    count: () => messages.size,
    /** Returns the offset behind which the cache has every kept message. */
    completeAfter: () => completeAfter,
    at: (offset: number) => messages.get(offset),
    /** Adds a message whose offset is above all earlier ones. */
    add(offset: number, message: BusMessage): void {
      messages.set(offset, message);
      bytes += bytesOf(message);
      evict();
    },
    drop(filter: string): void {
      for (const [offset, message] of messages) {
        if (topicMatches(filter, message.topic)) remove(offset, message);
      }
    },
    find(filter: string, after: number, upTo: number): FindResult {
      // A reader far behind walks the cache, which may have gaps. A reader that keeps up checks the few new offsets.
      const offsets = upTo - after > messages.size ? messages.keys() : range(after + 1, upTo);
      for (const offset of offsets) {
        if (offset > upTo) break;
        const message = offset > after ? messages.get(offset) : undefined;
        if (message && topicMatches(filter, message.topic)) return { offset, message };
      }
      return { offset: upTo };
    },
  };
}

/** Returns the size of a message as `maxBytes` counts it: topic and payload. */
export function bytesOf({ topic, payload }: BusMessage): number {
  return topic.length + payload.byteLength;
}

function* range(from: number, to: number): Generator<number> {
  for (let at = from; at <= to; at++) yield at;
}
