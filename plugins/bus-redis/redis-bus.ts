import { randomUUID } from "node:crypto";
import {
  type BusDelivery,
  type BusMessage,
  type ConsumeOptions,
  type MessageBus,
  OpenStarryError,
  type PluginContext,
  rfc3339,
  type SubscribeOptions,
} from "../../core/index.js";
import { topicMatches } from "../kit/topics.js";
import { contentOf } from "./calls.js";
import { createGroup, type Group } from "./group.js";
import { hear, type Listener } from "./notices.js";
import { createReader, type Reader } from "./reader.js";
import { createSession, every, type SessionOptions } from "./session.js";

/** How long a group counts as having members when nothing is heard of them, such as those of a daemon that is gone. */
const LEASE_MS = 60_000;

/** The bus on a Redis server: what is kept, and where groups stand, is there and nowhere else. */
export function createRedisBus(ctx: PluginContext, options: SessionOptions) {
  const { clock } = ctx;
  const readers = new Map<string, Reader>();
  const groups = new Map<string, Group>();
  let stopRenewing = () => {};

  const told: Listener = {
    kept(position, topic) {
      for (const reader of readers.values()) reader.kept(topic, position);
      for (const group of groups.values()) if (group.wants(topic)) group.lookAgain();
    },
    passing(behind, topic, about, payload) {
      const wanting = [...readers.values()].filter((reader) => reader.wants(topic));
      if (wanting.length === 0) return;
      const message = contentOf(topic, about, payload);
      for (const reader of wanting) reader.pass(message, behind);
    },
    begun: (reader, last) => readers.get(reader)?.begin(last),
    due: (group) => groups.get(group)?.lookAgain(),
    settled: (group, position) => groups.get(group)?.settled(position),
    removed: (group, born) => groups.get(group)?.removed(born),
  };

  const session = createSession(ctx, options, {
    onNotice: (notice) => hear(notice, told),
    onLost(error) {
      for (const reader of readers.values()) reader.fail(error);
      for (const group of groups.values()) group.fail(error);
    },
  });
  const { use } = session;

  /** That groups have members here, for a while from now on; or none any more, at 0. */
  function lease(ms: number, names: readonly string[]): void {
    // If that cannot be told, it is told again, or what was told before comes to its end.
    if (names.length > 0 && session.health() === undefined)
      void use()
        .lease(ms, names)
        .catch(() => {});
  }

  async function* read({ filter, signal }: SubscribeOptions, after?: number): AsyncGenerator<BusMessage> {
    if (signal.aborted) return;
    const calls = use();
    const reader = createReader({ filter, after, read: calls.read });
    const id = randomUUID();
    readers.set(id, reader);
    calls.begin(id).catch(reader.fail);
    signal.addEventListener("abort", reader.end);
    try {
      for (let it = await reader.next(); it; it = await reader.next()) yield it;
    } finally {
      signal.removeEventListener("abort", reader.end);
      readers.delete(id);
    }
  }

  async function* share(options: ConsumeOptions, after?: number): AsyncGenerator<BusDelivery> {
    const { signal } = options;
    if (signal.aborted) return;
    const name = nameOf(options);
    const group = groups.get(name) ?? open(name, options.filter, after);
    const member = group.join(options);
    const leave = () => {
      group.leave(member);
      if (!group.isEmpty() || groups.get(name) !== group) return;
      groups.delete(name);
      lease(0, [name]);
    };
    signal.addEventListener("abort", leave);
    try {
      for (let it = await group.next(member); it; it = await group.next(member)) yield it;
    } finally {
      signal.removeEventListener("abort", leave);
      leave();
    }
  }

  function open(name: string, filter: string, after: number | undefined): Group {
    const group = createGroup({
      name,
      filter,
      after,
      leaseMs: LEASE_MS,
      calls: use(),
      clock,
      onOver: () => {
        if (groups.get(name) === group) groups.delete(name);
      },
    });
    groups.set(name, group);
    return group;
  }

  /** Ends its members here: those who come from now on make a new one. */
  function end(name: string): void {
    groups.get(name)?.end();
  }

  const bus: MessageBus = {
    name: "redis",
    capabilities: {
      get durable() {
        return session.isDurable();
      },
    },
    async publish({ topic, payload, from, reply_to }, { keep = true } = {}) {
      const calls = use();
      const about = {
        at: rfc3339(clock.now()),
        ...(from === undefined ? {} : { from }),
        ...(reply_to === undefined ? {} : { reply_to }),
      };
      const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
      if (keep) return { position: await calls.publish(topic, about, bytes) };
      await calls.pass(topic, about, bytes);
      return {};
    },
    subscribe: (it) => read(it, startOf(it.after)),
    consume: (it) => share(it, startOf(it.after)),
    async removeGroup(of) {
      const calls = use();
      end(nameOf(of));
      await calls.removeGroup(nameOf(of));
    },
    async drop(filter) {
      const calls = use();
      for (const [name, group] of groups) if (topicMatches(filter, group.filter)) end(name);
      await calls.drop(filter);
    },
    health: session.health,
    ...(session.wanted ? { wanted: session.wanted } : {}),
  };

  return {
    bus,
    async start(): Promise<void> {
      await session.start();
      stopRenewing();
      stopRenewing = every(clock, LEASE_MS / 2, () => lease(LEASE_MS, [...groups.keys()]));
    },
    /** Readers reject; what members have not settled goes to others. A server of our own runs on. */
    async stop(): Promise<void> {
      stopRenewing();
      const held = new Map(groups);
      await session.stop((calls) => {
        for (const group of held.values()) group.leaveAll();
        if (held.size > 0) calls.lease(0, [...held.keys()]).catch(() => {});
      });
    },
  };
}

function nameOf({ filter, group }: Pick<ConsumeOptions, "filter" | "group">): string {
  return JSON.stringify([filter, group]);
}

/** Microseconds since the epoch, or so: of 16 digits. Throws `input_invalid`. */
function startOf(after: string | undefined): number | undefined {
  if (after === undefined || /^\d{1,16}$/.test(after)) return after === undefined ? undefined : Number(after);
  throw new OpenStarryError("input_invalid", {
    detail: '"after" is not a position of this bus',
    hint: 'give the position of a message, or "0" for everything that is kept',
  });
}
