import { randomUUID } from "node:crypto";
import {
  type BusDelivery,
  type BusMessage,
  type ConsumeOptions,
  type MessageBus,
  type PluginContext,
  rfc3339,
  type SubscribeOptions,
} from "../../core/index.js";
import { assertPosition } from "../kit/bus/position.js";
import { topicMatches } from "../kit/topics.js";
import { parseMessage } from "./commands.js";
import { type ConsumerGroup, createConsumerGroup } from "./consumer-group.js";
import { createMessageReader, type MessageReader } from "./message-reader.js";
import { dispatchNotification, type NotificationHandlers } from "./notifications.js";
import { createSession, every, type SessionOptions } from "./session.js";

/** How long a group counts as having members after they were last reported: their daemon may have crashed. */
const LEASE_MS = 60_000;

/** Creates the message bus on a Redis server. Messages and the progress of groups are stored only there. */
// Longer than 100 lines: the methods of the bus share the readers and groups of this daemon.
export function createRedisBus(ctx: PluginContext, options: SessionOptions) {
  const { clock } = ctx;
  const readers = new Map<string, MessageReader>();
  const groups = new Map<string, ConsumerGroup>();
  let stopRenewing = () => {};

  const handlers: NotificationHandlers = {
    onKept(position, topic) {
      for (const reader of readers.values()) reader.onKept(topic, position);
      for (const group of groups.values()) if (group.matches(topic)) group.check();
    },
    onTransient(afterPosition, topic, metadata, payload) {
      const matching = [...readers.values()].filter((reader) => reader.matches(topic));
      if (matching.length === 0) return;
      const message = parseMessage(topic, metadata, payload);
      for (const reader of matching) reader.onTransient(message, afterPosition);
    },
    onReaderStart: (readerId, last) => readers.get(readerId)?.start(last),
    onRedelivery: (group) => groups.get(group)?.check(),
    onLateAck: (group, position) => groups.get(group)?.onLateAck(position),
    onGroupRemoved: (group, groupId) => groups.get(group)?.onRemoved(groupId),
  };

  const session = createSession(ctx, options, {
    onNotification: (notification) => dispatchNotification(notification, handlers),
    onLost(error) {
      for (const reader of readers.values()) reader.fail(error);
      for (const group of groups.values()) group.fail(error);
    },
  });

  /** Reports that groups have members here, for a time from now on; for 0, that they have none. */
  function renewLease(ms: number, names: readonly string[]): void {
    if (names.length === 0 || session.health() !== undefined) return;
    // After a failure the next renewal follows, or the earlier lease ends by itself.
    session
      .commands()
      .renewLease(ms, names)
      .catch(() => {});
  }

  async function* read({ filter, signal }: SubscribeOptions, after?: number): AsyncGenerator<BusMessage> {
    if (signal.aborted) return;
    const commands = session.commands();
    const reader = createMessageReader({ filter, after, read: commands.read });
    const id = randomUUID();
    readers.set(id, reader);
    commands.startReader(id).catch(reader.fail);
    signal.addEventListener("abort", reader.end);
    try {
      for (let it = await reader.next(); it; it = await reader.next()) yield it;
    } finally {
      signal.removeEventListener("abort", reader.end);
      readers.delete(id);
    }
  }

  async function* consume(asked: ConsumeOptions, after?: number): AsyncGenerator<BusDelivery> {
    const { signal } = asked;
    if (signal.aborted) return;
    const name = nameOf(asked);
    const group = groups.get(name) ?? openGroup(name, asked.filter, after);
    const member = group.join(asked);
    const leave = () => {
      group.leave(member);
      if (!group.isEmpty() || groups.get(name) !== group) return;
      groups.delete(name);
      renewLease(0, [name]);
    };
    signal.addEventListener("abort", leave);
    try {
      for (let it = await group.next(member); it; it = await group.next(member)) yield it;
    } finally {
      signal.removeEventListener("abort", leave);
      leave();
    }
  }

  function openGroup(name: string, filter: string, after: number | undefined): ConsumerGroup {
    const group = createConsumerGroup({
      ...{ name, filter, after, clock },
      leaseMs: LEASE_MS,
      commands: session.commands(),
      onOver: () => {
        if (groups.get(name) === group) groups.delete(name);
      },
    });
    groups.set(name, group);
    return group;
  }

  const bus: MessageBus = {
    name: "redis",
    capabilities: {
      get durable() {
        return session.isDurable();
      },
    },
    async publish({ topic, payload, from, reply_to }, { keep = true } = {}) {
      const commands = session.commands();
      const metadata = { at: rfc3339(clock.now()), from, reply_to };
      const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
      if (keep) return { position: await commands.publish(topic, metadata, bytes) };
      await commands.publishTransient(topic, metadata, bytes);
      return {};
    },
    subscribe: (asked) => read(asked, positionOf(asked.after)),
    consume: (asked) => consume(asked, positionOf(asked.after)),
    async removeGroup(group) {
      const commands = session.commands();
      // Members that join from now on create a new group.
      groups.get(nameOf(group))?.end();
      await commands.removeGroup(nameOf(group));
    },
    async drop(filter) {
      const commands = session.commands();
      for (const group of [...groups.values()]) if (topicMatches(filter, group.filter)) group.end();
      await commands.drop(filter);
    },
    health: session.health,
    wanted: session.requestStart,
  };

  return {
    bus,
    async start(): Promise<void> {
      await session.start();
      stopRenewing();
      stopRenewing = every(clock, LEASE_MS / 2, () => renewLease(LEASE_MS, [...groups.keys()]));
    },
    /** Ends all iterations with an error, and returns unacknowledged messages. A managed server keeps running. */
    async stop(): Promise<void> {
      stopRenewing();
      const left = new Map(groups);
      await session.stop((commands) => {
        for (const group of left.values()) group.leaveAll();
        if (left.size > 0) commands.renewLease(0, [...left.keys()]).catch(() => {});
      });
    },
  };
}

function nameOf({ filter, group }: Pick<ConsumeOptions, "filter" | "group">): string {
  return JSON.stringify([filter, group]);
}

/** Parses a position: roughly microseconds since the epoch, in 16 digits. Throws `input_invalid`. */
function positionOf(after: string | undefined): number | undefined {
  assertPosition(after);
  return after === undefined ? undefined : Number(after);
}
