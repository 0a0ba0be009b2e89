import {
  type BusMessage,
  type Clock,
  type ConsumeOptions,
  type MessageBus,
  OpenStarryError,
  rfc3339,
  type SubscribeOptions,
} from "../../../core/index.js";
import { topicMatches } from "../topics.js";
import { type Bell, createBell } from "./bell.js";
import { createGroup, type Group, type Ticket, type TicketedDelivery } from "./group.js";
import { type Backlog, createPassing, type Passing } from "./passing.js";
import type { GroupBook, GroupName, GroupRecord, KeptLog } from "./storage.js";

export interface BusEngineOptions {
  name: string;
  clock: Pick<Clock, "now" | "after">;
  log: KeptLog;
  book: GroupBook;
  durable: boolean;
  maxGroups: number;
}

/** A message bus whose deliveries can be settled by their tickets too. */
export interface BusEngine extends MessageBus {
  consume(options: ConsumeOptions): AsyncIterable<TicketedDelivery>;
  ack(ticket: Ticket): Promise<void>;
  nack(ticket: Ticket, delayMs: number): Promise<void>;
}

interface Reader {
  filter: string;
  bell: Bell;
  cursor: number;
  backlog: Backlog;
}

/** The bus itself, over any storage: filters, readers, groups, redelivery. */
export function createBusEngine({ name, clock, log, book, durable, maxGroups }: BusEngineOptions) {
  const readers = new Set<Reader>();
  const passing = createPassing();
  const groups = new Map<string, Group>();
  /** Those that are gone, and that the book could not be told of yet. */
  const forgotten = new Set<GroupName>();
  let isStopped = false;
  let isRinging = false;
  for (const record of book.all()) groups.set(keyOf(record), createGroup({ record, log, book, clock }));

  function startOf(after: string | undefined): number | undefined {
    assertPosition(after);
    if (after === undefined) return undefined;
    // From a clock that was ahead of this one's: everything is news.
    return Number(after) > log.last() ? 0 : Number(after);
  }

  function mustRun(): void {
    if (!isStopped) return;
    throw new OpenStarryError("bus_unavailable", {
      detail: "the message bus is stopped",
      hint: "ask again when the daemon is back",
    });
  }

  function pass(message: BusMessage): void {
    const it: Passing = { message, behind: log.last(), readers: 0 };
    for (const { filter, backlog, bell } of readers) {
      if (!topicMatches(filter, message.topic)) continue;
      passing.add(backlog, it);
      bell.ring();
    }
  }

  function next(reader: Reader): BusMessage | undefined {
    const { filter, cursor, backlog } = reader;
    const behind = backlog.waiting[0]?.behind ?? Number.POSITIVE_INFINITY;
    const { position, message } = log.find(filter, cursor, Math.min(behind, log.newest()));
    reader.cursor = Math.max(cursor, position);
    if (message) return message;
    return reader.cursor >= behind ? passing.take(backlog) : undefined;
  }

  async function* read({ filter, signal }: SubscribeOptions, after?: number): AsyncGenerator<BusMessage> {
    const cursor = after ?? log.last();
    const reader: Reader = { filter, bell: createBell(), cursor, backlog: { waiting: [], bytes: 0 } };
    readers.add(reader);
    signal.addEventListener("abort", reader.bell.ring);
    try {
      while (!signal.aborted) {
        mustRun();
        const message = next(reader);
        if (message) yield message;
        else await (reader.cursor < log.newest() ? nextTurn() : reader.bell.rung());
      }
    } finally {
      readers.delete(reader);
      passing.forget(reader.backlog);
      signal.removeEventListener("abort", reader.bell.ring);
    }
  }

  async function* share(options: ConsumeOptions, after?: number): AsyncGenerator<TicketedDelivery> {
    const { signal, ackWaitMs, maxInFlight } = options;
    if (signal.aborted) return;
    mustRun();
    const group = open(options, after ?? log.last());
    const member = group.join();
    signal.addEventListener("abort", member.bell.ring);
    try {
      await group.save();
      while (!signal.aborted) {
        mustRun();
        if (group.isRemoved()) return;
        const isFree = member.out.size < maxInFlight;
        const delivery = isFree ? group.take(member, ackWaitMs) : undefined;
        if (delivery) yield delivery;
        else await (isFree && group.isBehind() ? nextTurn() : member.bell.rung());
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

  function open({ filter, group }: ConsumeOptions, cursor: number): Group {
    const key = keyOf({ filter, group });
    const known = groups.get(key);
    if (known) return known;
    for (const other of groups.values()) {
      if (groups.size < maxGroups) break;
      // What cannot be written down now is forgotten again at the next start.
      if (other.isIdle()) forget((it) => it === other.name).catch(() => {});
    }
    const record: GroupRecord = { filter, group, id: crypto.randomUUID(), cursor, unsettled: [] };
    const made = createGroup({ record, log, book, clock });
    groups.set(key, made);
    return made;
  }

  async function forget(isIt: (name: GroupName) => boolean): Promise<void> {
    for (const group of [...groups.values()].filter(({ name: it }) => isIt(it))) {
      groups.delete(keyOf(group.name));
      group.remove();
      forgotten.add(group.name);
    }
    const removed = [...forgotten].filter(isIt).map(async (it) => {
      await book.remove(it);
      forgotten.delete(it);
    });
    await Promise.all(removed);
  }

  /** The group that a ticket is of, as long as it is that one. */
  function groupOf(ticket: GroupName): Group | undefined {
    mustRun();
    const group = groups.get(keyOf(ticket));
    return group?.name.id === ticket.id ? group : undefined;
  }

  const ringAll = () => {
    for (const { bell } of readers) bell.ring();
    for (const group of groups.values()) group.ringAll();
  };

  /** Once for all that were kept together. */
  const ringSoon = () => {
    if (isRinging) return;
    isRinging = true;
    queueMicrotask(() => {
      isRinging = false;
      ringAll();
    });
  };

  const bus: BusEngine = {
    name,
    capabilities: { durable },
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
      if (!keep) {
        pass(message);
        return {};
      }
      const { position, kept } = log.append(message);
      // Where it could not be kept, others no longer wait for it.
      await kept.finally(ringSoon);
      return { position: String(position) };
    },
    subscribe: (it) => read(it, startOf(it.after)),
    consume: (it) => share(it, startOf(it.after)),
    removeGroup: ({ filter, group }) => forget((it) => it.filter === filter && it.group === group),
    async drop(filter) {
      await Promise.all([log.drop(filter), forget((it) => topicMatches(filter, it.filter))]);
    },
    ack: async (ticket) => groupOf(ticket)?.ack(ticket.position),
    nack: async (ticket, delayMs) => groupOf(ticket)?.nack(ticket, delayMs),
    health: () => (isStopped ? "it is stopped" : undefined),
  };
  return {
    bus,
    /** Iterations reject. Resolves when the book knows where each group stands. */
    async stop(): Promise<void> {
      isStopped = true;
      ringAll();
      await Promise.allSettled([...groups.values()].map((group) => group.save()));
    },
  };
}

/** One who has much to look at lets others have their turn. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function keyOf({ filter, group }: Pick<ConsumeOptions, "filter" | "group">): string {
  return JSON.stringify([filter, group]);
}

/** Throws `input_invalid` for what cannot be a position. */
export function assertPosition(after: string | undefined): void {
  if (after === undefined || /^\d{1,16}$/.test(after)) return;
  throw new OpenStarryError("input_invalid", {
    detail: '"after" is not a position of this bus',
    hint: 'give the position of a message, or "0" for everything that is kept',
  });
}
