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
import { topicMatches } from "../_shared/topics.js";
import { type Bell, createBell } from "./bell.js";
import { createGroup, type Group } from "./group.js";
import { bytesOf, createKeptLog } from "./kept-log.js";

export interface MemoryBusOptions {
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
}

interface Reader {
  filter: string;
  bell: Bell;
  /** Messages that are not kept, each behind the kept ones up to a position. */
  passing: { message: BusMessage; behind: number }[];
  passingBytes: number;
}

/** Of messages that are not kept, so many wait for one slow reader; then the oldest are lost to it. */
const MAX_PASSING = 1_000;
const MAX_PASSING_BYTES = 4 * 2 ** 20;

/** The reference: everything in this process's memory, gone with it. */
export function createMemoryBus(clock: Pick<Clock, "now" | "after">, options: MemoryBusOptions) {
  // Counted up from the time of the start, so that a later bus gives out greater positions.
  const log = createKeptLog({ ...options, first: clock.now() * 1_000 });
  const readers = new Set<Reader>();
  const groups = new Map<string, Group>();
  let isStopped = false;

  function startOf(after: string | undefined): number | undefined {
    if (after === undefined) return undefined;
    if (!/^\d{1,16}$/.test(after)) throw notAPosition();
    // From a clock that was ahead of this one's: everything is news.
    return Number(after) > log.newest() ? 0 : Number(after);
  }

  function mustRun(): void {
    if (!isStopped) return;
    throw new OpenStarryError("bus_unavailable", {
      detail: "the message bus is stopped",
      hint: "ask again when the daemon is back",
    });
  }

  function pass(message: BusMessage): void {
    for (const reader of readers) {
      if (!topicMatches(reader.filter, message.topic)) continue;
      reader.passing.push({ message, behind: log.newest() });
      reader.passingBytes += bytesOf(message);
      while (reader.passing.length > MAX_PASSING || reader.passingBytes > MAX_PASSING_BYTES) shift(reader);
    }
  }

  async function* read({ filter, signal }: SubscribeOptions, after?: number): AsyncGenerator<BusMessage> {
    const reader: Reader = { filter, bell: createBell(), passing: [], passingBytes: 0 };
    let cursor = after ?? log.newest();
    const next = () => {
      const upTo = reader.passing[0]?.behind ?? log.newest();
      const kept = log.find(filter, cursor, upTo);
      cursor = kept?.position ?? Math.max(cursor, upTo);
      return kept?.message ?? shift(reader);
    };
    readers.add(reader);
    signal.addEventListener("abort", reader.bell.ring);
    try {
      while (!signal.aborted) {
        mustRun();
        const message = next();
        if (message) yield message;
        else await reader.bell.rung();
      }
    } finally {
      readers.delete(reader);
      signal.removeEventListener("abort", reader.bell.ring);
    }
  }

  async function* share(options: ConsumeOptions, after?: number): AsyncGenerator<BusDelivery> {
    const { signal, ackWaitMs, maxInFlight } = options;
    if (signal.aborted) return;
    const group = open(options, after ?? log.newest());
    const member = group.join();
    signal.addEventListener("abort", member.bell.ring);
    try {
      while (!signal.aborted) {
        mustRun();
        if (group.isRemoved()) return;
        const delivery = member.out.size < maxInFlight ? group.take(member, ackWaitMs) : undefined;
        if (delivery) yield delivery;
        else await member.bell.rung();
      }
    } finally {
      signal.removeEventListener("abort", member.bell.ring);
      group.leave(member);
      moveToEnd(keyOf(options), group);
    }
  }

  /** The group that was left last is the last to be forgotten. */
  function moveToEnd(key: string, group: Group): void {
    if (groups.get(key) !== group) return;
    groups.delete(key);
    groups.set(key, group);
  }

  function open(of: ConsumeOptions, after: number): Group {
    const known = groups.get(keyOf(of));
    if (known) return known;
    for (const [key, group] of groups) {
      if (groups.size < options.maxGroups) break;
      if (group.isIdle()) forget(key, group);
    }
    const made = createGroup({ filter: of.filter, log, clock, after });
    groups.set(keyOf(of), made);
    return made;
  }

  function forget(key: string, group: Group | undefined): void {
    groups.delete(key);
    group?.remove();
  }

  const ringAll = () => {
    for (const { bell } of readers) bell.ring();
    for (const group of groups.values()) group.ringAll();
  };

  const bus: MessageBus = {
    name: "memory",
    capabilities: { durable: false },
    async publish({ topic, payload, from, reply_to }, { keep = true } = {}) {
      mustRun();
      const message: BusMessage = {
        topic,
        // A copy: what the caller does with its bytes later changes nothing here.
        payload: Uint8Array.from(payload),
        at: rfc3339(clock.now()),
        ...(from === undefined ? {} : { from }),
        ...(reply_to === undefined ? {} : { reply_to }),
      };
      const position = keep ? log.append(message).position : undefined;
      if (!keep) pass(message);
      ringAll();
      return position === undefined ? {} : { position };
    },
    subscribe: (it) => read(it, startOf(it.after)),
    consume: (it) => share(it, startOf(it.after)),
    removeGroup: async (of) => forget(keyOf(of), groups.get(keyOf(of))),
    async drop(filter) {
      log.drop(filter);
      for (const [key, group] of groups) if (topicMatches(filter, group.filter)) forget(key, group);
    },
    health: () => (isStopped ? "it is stopped" : undefined),
  };
  return {
    bus,
    stop() {
      isStopped = true;
      for (const [key, group] of groups) forget(key, group);
      ringAll();
    },
  };
}

function shift(reader: Reader): BusMessage | undefined {
  const message = reader.passing.shift()?.message;
  if (message) reader.passingBytes -= bytesOf(message);
  return message;
}

function keyOf({ filter, group }: Pick<ConsumeOptions, "filter" | "group">): string {
  return JSON.stringify([filter, group]);
}

function notAPosition(): OpenStarryError {
  return new OpenStarryError("input_invalid", {
    detail: '"after" is not a position of this bus',
    hint: 'give the position of a message, or "0" for everything that is kept',
  });
}
