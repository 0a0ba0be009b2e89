import { randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
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
import { createDiskRoom } from "../_shared/redis/disk-room.js";
import { reaching } from "../_shared/redis/failures.js";
import { inspectServer } from "../_shared/redis/inspect.js";
import type { RedisChoice } from "../_shared/redis/options.js";
import { createRedisServer } from "../_shared/redis/redis-server.js";
import { topicMatches } from "../_shared/topics.js";
import { type Calls, contentOf, createCalls } from "./calls.js";
import { createGroup, type Group } from "./group.js";
import { hear, type Listener } from "./notices.js";
import { createReader, type Reader } from "./reader.js";

export interface RedisBusOptions extends RedisChoice {
  /** All names on the server begin with it. */
  prefix: string;
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
  /** Whether the server of `url` keeps what it has acknowledged. Absent: as it says itself. */
  durable?: boolean | undefined;
}

/** How long a group counts as having members when nothing is heard of them, such as those of a daemon that is gone. */
const LEASE_MS = 60_000;
/** How often it is looked whether there is room on the disk. */
const LOOK_MS = 1_000;

/** The bus on a Redis server: what is kept, and where groups stand, is there and nowhere else. */
export function createRedisBus(ctx: PluginContext, options: RedisBusOptions) {
  const { clock } = ctx;
  const root = `${options.prefix}:bus`;
  const server = createRedisServer(ctx, options);
  const room =
    server.folder === undefined ? undefined : createDiskRoom(server.folder, clock, "bus_unavailable");
  const readers = new Map<string, Reader>();
  const groups = new Map<string, Group>();
  let durable = options.durable ?? options.managed;
  let connected: Calls | undefined;
  let isStopped = false;

  const health = () => (isStopped ? "it is stopped" : connected ? server.health() : "it is not started");

  function unavailable(): OpenStarryError {
    return new OpenStarryError("bus_unavailable", {
      detail: health() ?? `the connection to ${server.address()} was lost`,
      hint: "ask again in a moment; readers go on behind the last position that they have seen",
      data: { retry_after_s: 1 },
    });
  }

  /** What can be asked now. Throws `bus_unavailable`. */
  function use(): Calls {
    if (connected && health() === undefined) return connected;
    throw unavailable();
  }

  function failAll(): void {
    const error = unavailable();
    for (const reader of readers.values()) reader.fail(error);
    for (const group of groups.values()) group.fail(error);
  }

  function connect(): Calls {
    const onChange = () => {
      if (health() !== undefined) failAll();
    };
    const { redis } = server.connect("bus", { prepare: look, onChange });
    // Of its own: a server gives up one that listens and is slow to take what it is told.
    const listener = server.connect("bus-listener", {
      prepare: async (it) => void (await it.subscribe(root)),
      onChange,
    });
    listener.redis.on("messageBuffer", (_channel, notice) => hear(notice, told));
    return createCalls({
      redis,
      root,
      maxMessages: options.maxMessages,
      maxBytes: options.maxBytes,
      maxGroups: options.maxGroups,
      checkRoom: (underWayBytes) => room?.check(underWayBytes),
      reaching: (act) => reaching("bus_unavailable", server.address(), act),
    });
  }

  /** What the server says of itself, after each connecting. */
  async function look(redis: Redis): Promise<void> {
    const { problem, syncsAlways } = await inspectServer(redis);
    server.note("server", problem);
    if (options.managed || options.durable !== undefined) return;
    durable = syncsAlways === true;
    ctx.log.info(
      { server: server.address(), syncs_every_write: syncsAlways ?? "not known" },
      durable ? "what is acknowledged is kept" : "what is acknowledged may be lost with the server",
    );
  }

  function every(ms: number, act: () => void): void {
    clock.after(ms, () => {
      if (isStopped) return;
      act();
      every(ms, act);
    });
  }

  /** Of the groups that have members here. What fails is renewed the next time. */
  function renewLeases(): void {
    if (groups.size > 0) connected?.lease(LEASE_MS, [...groups.keys()]).catch(() => {});
  }

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
      // Else it is without members when its lease is over.
      connected?.lease(0, [name]).catch(() => {});
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
        return durable;
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
    health,
    // One that runs is not ours to bring up.
    ...(options.managed ? { wanted: server.wanted } : {}),
  };

  return {
    bus,
    /** Rejects with `config_invalid` or `home_unusable`; not for a server that cannot be reached. */
    async start(): Promise<void> {
      if (connected) return;
      await server.start();
      connected = connect();
      every(LEASE_MS / 2, renewLeases);
      every(LOOK_MS, () => server.note("room", room?.problem()));
      await server.open();
    },
    /** Readers reject; what members have not settled goes to others. A server of our own runs on. */
    async stop(): Promise<void> {
      if (isStopped) return;
      const isUp = health() === undefined;
      isStopped = true;
      const held = new Map(groups);
      failAll();
      for (const group of held.values()) group.leaveAll();
      if (isUp) {
        connected?.lease(0, [...held.keys()]).catch(() => {});
        await connected?.flush();
      }
      server.stop();
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
