import { createHash } from "node:crypto";
import type { ConsumerInfo } from "@nats-io/jetstream";
import type { Clock, ConsumeOptions } from "../../core/index.js";
import { topicMatches } from "../kit/topics.js";
import { type ConsumerGroup, createConsumerGroup } from "./consumer-group.js";
import { errorText, isConsumerNotFound, unavailable } from "./failures.js";
import type { Session } from "./session.js";
import type { Names } from "./stream.js";
import { filterSubjectOf } from "./subjects.js";

/** How much longer the server waits for an acknowledgement than a member: the member's own time is kept here. */
const SLACK_MS = 1_000;
const NANOS_PER_MS = 1e6;

export interface ConsumerGroupsOptions {
  names: Names;
  maxGroups: number;
  clock: Pick<Clock, "after">;
  session: () => Session;
}

export type ConsumerGroups = ReturnType<typeof createConsumerGroups>;

type GroupName = Pick<ConsumeOptions, "filter" | "group">;

/** Creates the consumer groups of the bus. Each is a durable consumer of the stream. */
// Longer than 100 lines: one map of groups, and one short function for each thing that is done with it.
export function createConsumerGroups({ names, maxGroups, clock, session }: ConsumerGroupsOptions) {
  /** By consumer. The group that was without members for the longest time comes first. */
  const groups = new Map<string, ConsumerGroup>();
  /** The `ack_wait` of each consumer. It is never shorter than a member's own time. */
  const serverAckWaitMs = new WeakMap<ConsumerGroup, number>();

  function add(name: GroupName, ackWaitMs: number): ConsumerGroup {
    const consumer = consumerOf(name);
    const group = createConsumerGroup({
      ...name,
      consumer: `${names.stream}.${consumer}`,
      clock,
      session,
    });
    serverAckWaitMs.set(group, ackWaitMs);
    groups.set(consumer, group);
    return group;
  }

  /** Finds a group that another daemon has created on the same server. */
  async function find({ jsm }: Session, name: GroupName): Promise<ConsumerGroup | undefined> {
    try {
      const { config } = await jsm.consumers.info(names.stream, consumerOf(name));
      return add(name, (config.ack_wait ?? 0) / NANOS_PER_MS);
    } catch (error) {
      if (isConsumerNotFound(error)) return undefined;
      throw error;
    }
  }

  async function create({ jsm }: Session, options: ConsumeOptions, after: number): Promise<ConsumerGroup> {
    for (const [consumer, group] of groups) {
      if (groups.size < maxGroups) break;
      if (group.isIdle()) await remove(consumer);
    }
    const ackWaitMs = options.ackWaitMs + SLACK_MS;
    await jsm.consumers.add(names.stream, {
      durable_name: consumerOf(options),
      description: JSON.stringify({ filter: options.filter, group: options.group }),
      filter_subject: `${names.kept}.${filterSubjectOf(options.filter)}`,
      deliver_policy: "by_start_sequence",
      opt_start_seq: after + 1,
      ack_policy: "explicit",
      ack_wait: ackWaitMs * NANOS_PER_MS,
      // Unlimited: each member's limit is enforced here, and the server counts messages that wait for redelivery too.
      max_ack_pending: -1,
      max_waiting: 10_000,
    });
    return add(options, ackWaitMs);
  }

  async function remove(consumer: string): Promise<void> {
    const group = groups.get(consumer);
    groups.delete(consumer);
    group?.remove();
    try {
      await session().jsm.consumers.delete(names.stream, consumer);
    } catch (error) {
      if (!isConsumerNotFound(error)) throw error;
    }
  }

  const attempt = async <T>(act: () => Promise<T>): Promise<T> => {
    try {
      return await act();
    } catch (error) {
      throw unavailable(errorText(error), error);
    }
  };

  return {
    /** Loads the groups that the server has, when a session starts. */
    async load({ jsm }: Session): Promise<void> {
      const found = new Set<string>();
      for await (const info of jsm.consumers.list(names.stream)) {
        const name = nameOf(info);
        if (!name) continue;
        found.add(info.name);
        if (!groups.has(info.name)) add(name, (info.config.ack_wait ?? 0) / NANOS_PER_MS);
      }
      for (const [consumer, group] of groups) {
        if (found.has(consumer)) continue;
        groups.delete(consumer);
        group.remove();
      }
    },
    /** Returns the group. A new one starts behind the sequence that `start` returns. */
    open: (on: Session, options: ConsumeOptions, start: () => Promise<number>): Promise<ConsumerGroup> =>
      attempt(async () => {
        const known = groups.get(consumerOf(options));
        const existing = known && !known.isRemoved() ? known : await find(on, options);
        const group = existing ?? (await create(on, options, await start()));
        const ackWaitMs = Math.max(options.ackWaitMs, group.maxAckWaitMs()) + SLACK_MS;
        if (serverAckWaitMs.get(group) !== ackWaitMs) {
          const ack_wait = ackWaitMs * NANOS_PER_MS;
          await on.jsm.consumers.update(names.stream, consumerOf(options), { ack_wait });
          serverAckWaitMs.set(group, ackWaitMs);
        }
        return group;
      }),
    /** Notes that a member has left the group. */
    onLeave(group: ConsumerGroup): void {
      const consumer = consumerOf(group);
      if (groups.get(consumer) !== group) return;
      groups.delete(consumer);
      groups.set(consumer, group);
    },
    remove: (name: GroupName) => attempt(() => remove(consumerOf(name))),
    drop: (filter: string) =>
      attempt(async () => {
        for (const [consumer, group] of [...groups])
          if (topicMatches(filter, group.filter)) await remove(consumer);
      }),
    leaveAll(): void {
      for (const group of groups.values()) group.leaveAll();
    },
    notifyAll(): void {
      for (const group of groups.values()) group.notifyAll();
    },
  };
}

function consumerOf({ filter, group }: GroupName): string {
  return `g-${createHash("sha256")
    .update(JSON.stringify([filter, group]))
    .digest("hex")
    .slice(0, 32)}`;
}

/** Reads the group of a consumer; returns `undefined` for one that this plugin did not create. */
function nameOf({ name, config }: ConsumerInfo): GroupName | undefined {
  try {
    const { filter, group } = JSON.parse(config.description ?? "") as Partial<GroupName>;
    if (typeof filter !== "string" || typeof group !== "string") return undefined;
    return consumerOf({ filter, group }) === name ? { filter, group } : undefined;
  } catch {
    // The description is not ours.
    return undefined;
  }
}
