import {
  type BusMessage,
  type Clock,
  type ConsumeOptions,
  type MessageBus,
  OpenStarryError,
  rfc3339,
} from "../../../core/index.js";
import { topicMatches } from "../topics.js";
import type { DeliveryTag, TaggedDelivery } from "./consumer-group.js";
import { createConsumerGroups } from "./consumer-groups.js";
import { createMessageReaders } from "./message-readers.js";
import { assertPosition } from "./position.js";
import type { ConsumerGroupStore, MessageLog } from "./storage.js";

export interface BusEngineOptions {
  name: string;
  clock: Pick<Clock, "now" | "after">;
  log: MessageLog;
  groups: ConsumerGroupStore;
  durable: boolean;
  maxGroups: number;
}

/** A message bus whose deliveries can also be acknowledged by their tags. */
export interface BusEngine extends MessageBus {
  consume(options: ConsumeOptions): AsyncIterable<TaggedDelivery>;
  ack(tag: DeliveryTag): Promise<void>;
  nack(tag: DeliveryTag, delayMs: number): Promise<void>;
}

/** Creates a message bus on top of a message log and a store of consumer groups. */
export function createBusEngine({ name, clock, log, groups: store, durable, maxGroups }: BusEngineOptions) {
  let isStopped = false;
  let isNotifying = false;

  function assertRunning(): void {
    if (!isStopped) return;
    throw new OpenStarryError("bus_unavailable", {
      detail: "the message bus is stopped",
      hint: "try again when the daemon runs again",
    });
  }

  const readers = createMessageReaders(log, assertRunning);
  const groups = createConsumerGroups({ log, store, clock, maxGroups, assertRunning });

  const notifyAll = () => {
    readers.notifyAll();
    groups.notifyAll();
  };

  /** Notifies once for all messages that were stored together. */
  const notifySoon = () => {
    if (isNotifying) return;
    isNotifying = true;
    queueMicrotask(() => {
      isNotifying = false;
      notifyAll();
    });
  };

  function offsetOf(after: string | undefined): number | undefined {
    assertPosition(after);
    if (after === undefined) return undefined;
    // A position from a log whose clock was ahead: every message of this log counts as later.
    return Number(after) > log.lastOffset() ? 0 : Number(after);
  }

  function groupOf(tag: DeliveryTag) {
    assertRunning();
    return groups.find(tag);
  }

  const bus: BusEngine = {
    name,
    capabilities: { durable },
    async publish({ topic, payload, from, reply_to }, { keep = true } = {}) {
      assertRunning();
      const message: BusMessage = {
        topic,
        // A copy, since the caller may reuse its buffer.
        payload: Uint8Array.from(payload),
        at: rfc3339(clock.now()),
        from,
        reply_to,
      };
      if (!keep) {
        readers.publishTransient(message);
        return {};
      }
      const { offset, stored } = log.append(message);
      // After a failure too: later messages no longer wait for this one.
      await stored.finally(notifySoon);
      return { position: String(offset) };
    },
    subscribe: (options) => readers.read(options, offsetOf(options.after)),
    consume: (options) => groups.consume(options, offsetOf(options.after)),
    removeGroup: ({ filter, group }) => groups.remove((id) => id.filter === filter && id.group === group),
    async drop(filter) {
      await Promise.all([log.drop(filter), groups.remove((id) => topicMatches(filter, id.filter))]);
    },
    ack: async (tag) => groupOf(tag)?.ack(tag.position),
    nack: async (tag, delayMs) => groupOf(tag)?.nack(tag, delayMs),
    health: () => (isStopped ? "the bus is stopped" : undefined),
  };
  return {
    bus,
    /** Ends all iterations with an error. Resolves when the progress of every group is saved. */
    async stop(): Promise<void> {
      isStopped = true;
      notifyAll();
      await groups.saveAll();
    },
  };
}
