import { randomUUID } from "node:crypto";
import {
  type BusDelivery,
  type BusMessage,
  type Clock,
  type ConsumeOptions,
  type MessageBus,
  OpenStarryError,
  rfc3339,
  type SubscribeOptions,
} from "../../core/index.js";
import { reaching } from "../_shared/redis/failures.js";
import type { RedisServer } from "../_shared/redis/redis-server.js";
import { topicMatches } from "../_shared/topics.js";
import { type Calls, contentOf, createCalls } from "./calls.js";
import { createGroup, type Group } from "./group.js";
import { createLink, type Link } from "./link.js";
import { createReader, type Reader } from "./reader.js";
import { patternOf } from "./scripts.js";

export interface RedisBusOptions {
  server: RedisServer;
  clock: Clock;
  /** All names on the server begin with it. */
  prefix: string;
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
  isDurable: () => boolean;
}

/** How long a group counts as having members when nothing is heard of them, such as those of a daemon that is gone. */
const LEASE_MS = 60_000;

/** The bus on a Redis server: what is kept, and where groups stand, is there and nowhere else. */
export function createRedisBus({ server, clock, prefix, isDurable, ...limits }: RedisBusOptions) {
  const root = `${prefix}:bus`;
  const readers = new Map<string, Reader>();
  const groups = new Map<string, Group>();
  let connected: { calls: Calls; link: Link } | undefined;
  let isStopped = false;

  function health(): string | undefined {
    if (isStopped) return "it is stopped";
    return server.health() ?? (connected ? connected.link.problem() : "it has not been started");
  }

  function unavailable(): OpenStarryError {
    return new OpenStarryError("bus_unavailable", {
      detail: `the message bus cannot be used: ${health() ?? "its connection was lost"}`,
      hint: "ask again in a moment, with the last position that was seen",
      data: { retry_after_s: 1 },
    });
  }

  /** What can be asked now. Throws `bus_unavailable`. */
  function use(): Calls {
    if (!isStopped && connected?.link.isUp()) return connected.calls;
    if (!isStopped) server.wanted();
    throw unavailable();
  }

  function failAll(): void {
    const error = unavailable();
    for (const reader of readers.values()) reader.fail(error);
    for (const group of groups.values()) group.fail(error);
  }

  function connect(): void {
    const commands = server.connect("bus").redis;
    const listener = server.connect("bus-listener").redis;
    const calls = createCalls({
      ...limits,
      redis: commands,
      root,
      reaching: (act) => reaching("bus_unavailable", server.address(), act),
    });
    const link = createLink({
      clock,
      commands,
      listener,
      channel: root,
      onDown: failAll,
      onNotice: (notice) => take(notice),
    });
    connected = { calls, link };
    renewLeases(calls);
  }

  /** Of the groups that have members here. */
  function renewLeases(calls: Calls): void {
    clock.after(LEASE_MS / 2, () => {
      if (isStopped) return;
      // Renewed the next time.
      if (groups.size > 0) calls.lease(LEASE_MS, [...groups.keys()]).catch(() => {});
      renewLeases(calls);
    });
  }

  /** What happened on the bus: see `scripts.ts`. */
  function take(notice: Buffer): void {
    const end = notice.indexOf("\n");
    const head = end < 0 ? notice : notice.subarray(0, end);
    const [kind, first = "", second = "", third = ""] = JSON.parse(String(head)) as string[];
    if (kind === "kept") {
      for (const reader of readers.values()) reader.kept(second, Number(first));
      for (const group of groups.values()) if (topicMatches(group.filter, second)) group.lookAgain();
    } else if (kind === "passing") {
      if (readers.size === 0) return;
      const message = contentOf(second, third, notice.subarray(end + 1));
      for (const reader of readers.values()) reader.pass(message, Number(first));
    } else if (kind === "begun") readers.get(first)?.begin(Number(second));
    else if (kind === "due") groups.get(first)?.lookAgain();
    else if (kind === "settled") groups.get(first)?.settled(second);
    else if (kind === "removed") groups.get(first)?.removed(second);
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
      // Else it is without members when its lease is over.
      connected?.calls.lease(0, [name]).catch(() => {});
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
        return isDurable();
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
      await calls.drop(patternOf(filter));
    },
    health,
    wanted: () => server.wanted(),
  };

  return {
    bus,
    /** After the server's start: waits for it a moment, and goes on trying. */
    async open(): Promise<void> {
      connect();
      await server.open();
      await connected?.link.answered();
    },
    /** Resolves when what was asked for has been answered. */
    async stop(): Promise<void> {
      if (isStopped) return;
      const isUp = connected?.link.isUp();
      isStopped = true;
      const held = new Map(groups);
      failAll();
      for (const group of held.values()) group.leaveAll();
      if (!isUp) return;
      connected?.calls.lease(0, [...held.keys()]).catch(() => {});
      await connected?.calls.flush();
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
