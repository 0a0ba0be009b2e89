import type { Clock, ConsumeOptions } from "../../../core/index.js";
import { type ConsumerGroup, createConsumerGroup, type TaggedDelivery } from "./consumer-group.js";
import { yieldToEventLoop } from "./message-readers.js";
import type { ConsumerGroupId, ConsumerGroupRecord, ConsumerGroupStore, MessageLog } from "./storage.js";

export interface ConsumerGroupsOptions {
  log: MessageLog;
  store: ConsumerGroupStore;
  clock: Pick<Clock, "after">;
  maxGroups: number;
  assertRunning: () => void;
}

/** Creates the consumer groups of a bus, with those that the store has. */
export function createConsumerGroups(options: ConsumerGroupsOptions) {
  const { log, store, clock, maxGroups, assertRunning } = options;
  /** The group that was without members for the longest time comes first. */
  const groups = new Map<string, ConsumerGroup>();
  /** Groups that are removed here and not yet in the store: the next removal tries them again. */
  const unsavedRemovals = new Set<ConsumerGroupId>();
  for (const record of store.all()) {
    groups.set(keyOf(record), createConsumerGroup({ record, log, store, clock }));
  }

  function open({ filter, group }: ConsumeOptions, cursor: number): ConsumerGroup {
    const key = keyOf({ filter, group });
    const existing = groups.get(key);
    if (existing) return existing;
    for (const other of groups.values()) {
      if (groups.size < maxGroups) break;
      // If the store cannot be written now, the group exists again after a restart, and is removed again.
      if (other.isIdle()) remove((id) => id === other.id).catch(() => {});
    }
    const record: ConsumerGroupRecord = { filter, group, id: crypto.randomUUID(), cursor, pending: [] };
    const created = createConsumerGroup({ record, log, store, clock });
    groups.set(key, created);
    return created;
  }

  async function remove(isMatch: (id: ConsumerGroupId) => boolean): Promise<void> {
    for (const group of [...groups.values()].filter(({ id }) => isMatch(id))) {
      groups.delete(keyOf(group.id));
      group.remove();
      unsavedRemovals.add(group.id);
    }
    const removals = [...unsavedRemovals].filter(isMatch).map(async (id) => {
      await store.remove(id);
      unsavedRemovals.delete(id);
    });
    await Promise.all(removals);
  }

  function moveToEnd(group: ConsumerGroup): void {
    const key = keyOf(group.id);
    if (groups.get(key) !== group) return;
    groups.delete(key);
    groups.set(key, group);
  }

  return {
    /** Yields the deliveries of one member. A new group starts behind the offset; without one, at new messages. */
    async *consume(member: ConsumeOptions, after?: number): AsyncGenerator<TaggedDelivery> {
      const { signal, ackWaitMs, maxInFlight } = member;
      if (signal.aborted) return;
      assertRunning();
      const group = open(member, after ?? log.lastOffset());
      const joined = group.join();
      signal.addEventListener("abort", joined.changed.notify);
      try {
        await group.save();
        while (!signal.aborted) {
          assertRunning();
          if (group.isRemoved()) return;
          const hasRoom = joined.inFlight.size < maxInFlight;
          const delivery = hasRoom ? group.deliver(joined, ackWaitMs) : undefined;
          if (delivery) yield delivery;
          else await (hasRoom && group.hasMore() ? yieldToEventLoop() : joined.changed.wait());
        }
      } finally {
        signal.removeEventListener("abort", joined.changed.notify);
        group.leave(joined);
        moveToEnd(group);
      }
    },
    /** Returns the group with this id; `undefined` when it was removed, even if another has its name now. */
    find(id: ConsumerGroupId): ConsumerGroup | undefined {
      const group = groups.get(keyOf(id));
      return group?.id.id === id.id ? group : undefined;
    },
    remove,
    notifyAll(): void {
      for (const group of groups.values()) group.notifyAll();
    },
    /** Resolves when every group has tried to save its progress. */
    async saveAll(): Promise<void> {
      await Promise.allSettled([...groups.values()].map((group) => group.save()));
    },
  };
}

function keyOf({ filter, group }: Pick<ConsumeOptions, "filter" | "group">): string {
  return JSON.stringify([filter, group]);
}
