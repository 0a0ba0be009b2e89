import type { Clock } from "../../core/index.js";
import { createBusEngine } from "../kit/bus/bus-engine.js";
import { createRecentMessages } from "../kit/bus/recent-messages.js";
import type { GroupBook, KeptLog } from "../kit/bus/storage.js";

export interface MemoryBusOptions {
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
}

/** The reference: everything in this process's memory, gone with it. */
export function createMemoryBus(clock: Pick<Clock, "now" | "after">, options: MemoryBusOptions) {
  const log = createMemoryLog(clock, options);
  const { maxGroups } = options;
  return createBusEngine({ name: "memory", clock, log, book: forgetful, durable: false, maxGroups });
}

const forgetful: GroupBook = { all: () => [], save: async () => {}, remove: async () => {} };

function createMemoryLog(clock: Pick<Clock, "now">, { maxMessages, maxBytes }: MemoryBusOptions): KeptLog {
  // Counted up from the time of the start, so that a later bus gives out greater positions.
  let newest = clock.now() * 1_000 - 1;
  const kept = createRecentMessages({ maxMessages, maxBytes, after: newest });
  return {
    ...kept,
    append(message) {
      newest += 1;
      kept.add(newest, { ...message, position: String(newest) });
      return { position: newest, kept: Promise.resolve() };
    },
    last: () => newest,
    newest: () => newest,
    drop: async (filter) => kept.drop(filter),
  };
}
