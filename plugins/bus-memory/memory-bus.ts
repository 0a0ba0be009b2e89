import type { Clock } from "../../core/index.js";
import { createBusEngine } from "../kit/bus/bus-engine.js";
import { createRecentMessages } from "../kit/bus/recent-messages.js";
import type { ConsumerGroupStore, MessageLog } from "../kit/bus/storage.js";

export interface MemoryBusOptions {
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
}

/** Creates the reference message bus, which keeps everything in the memory of this process. */
export function createMemoryBus(clock: Pick<Clock, "now" | "after">, options: MemoryBusOptions) {
  const log = createMemoryLog(clock, options);
  const { maxGroups } = options;
  return createBusEngine({ name: "memory", clock, log, groups: nullStore, durable: false, maxGroups });
}

/** Stores nothing: the progress of groups lives in the engine only. */
const nullStore: ConsumerGroupStore = { all: () => [], save: async () => {}, remove: async () => {} };

function createMemoryLog(clock: Pick<Clock, "now">, { maxMessages, maxBytes }: MemoryBusOptions): MessageLog {
  // Offsets start from the time, so that a later bus assigns greater ones.
  let last = clock.now() * 1_000 - 1;
  const messages = createRecentMessages({ maxMessages, maxBytes, after: last });
  return {
    ...messages,
    append(message) {
      last += 1;
      messages.add(last, { ...message, position: String(last) });
      return { offset: last, stored: Promise.resolve() };
    },
    lastOffset: () => last,
    readableUpTo: () => last,
    drop: async (filter) => messages.drop(filter),
  };
}
