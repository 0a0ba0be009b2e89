import type { NodeConnectionOptions } from "@nats-io/transport-node";
import {
  type BusDelivery,
  type BusMessage,
  type Clock,
  type ConsumeOptions,
  type Logger,
  type MessageBus,
  OpenStarryError,
  type SubscribeOptions,
} from "../../core/index.js";
import { createGroups, type Groups } from "./groups.js";
import { namesOf } from "./kept-stream.js";
import { createLink } from "./link.js";
import { createReaders, messagesFor } from "./readers.js";
import { openSession, type Session } from "./session.js";
import { createTurns } from "./turns.js";

export interface NatsBusOptions {
  prefix: string;
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
  clock: Clock;
  log: Logger;
  /** Where the server is, and how to be let in; asked before every attempt. Rejects with a reason in words. */
  connection: () => Promise<NodeConnectionOptions>;
  /** The server, as it is called in messages. */
  where: string;
  /** Why there is nothing to connect to yet; then `connect` is called when there is. */
  notYet?: () => string | undefined;
  onChange?: (problem: string | undefined) => void;
}

/** The bus over one NATS server with JetStream. */
export function createNatsBus(options: NatsBusOptions) {
  const { clock, log, maxMessages, maxBytes, maxGroups, notYet = () => undefined } = options;
  const names = namesOf(options.prefix);
  const turns = createTurns();
  const readers = createReaders();
  const groups: Groups = createGroups({ names, maxGroups, clock, session: () => link.session() });
  /**
   * Settles when what was dropped up to now is gone, which takes its time. Who comes to read waits for it; who
   * publishes does not.
   */
  let dropped: Promise<unknown> = Promise.resolve();
  const ringAll = () => {
    readers.ringAll();
    groups.ringAll();
  };

  const link = createLink({
    clock,
    log,
    where: options.where,
    notYet,
    onChange: (problem) => options.onChange?.(problem),
    async open(onLost) {
      const session = await openSession({
        connection: await options.connection(),
        names,
        limits: { maxMessages, maxBytes },
        clock,
        onKept: readers.ringAll,
        onPassing: readers.pass,
        onLost(why) {
          onLost(why);
          ringAll();
        },
      });
      try {
        await groups.load(session);
      } catch (error) {
        await session.close();
        throw error;
      }
      return session;
    },
  });

  /** Where one who comes now begins to read. */
  async function start(session: Session, after: string | undefined): Promise<number> {
    const last = await session.lastSequence();
    return after === undefined ? last : session.sequenceOf(after, last);
  }

  async function* read({ filter, signal, after }: SubscribeOptions): AsyncGenerator<BusMessage> {
    if (signal.aborted) return;
    const session = link.session();
    const before = dropped;
    const { reader, from } = await turns.alone(async () => {
      const from = await start(session, after);
      return { reader: readers.join(filter), from };
    });
    signal.addEventListener("abort", reader.bell.ring);
    try {
      await before;
      yield* messagesFor(reader, session, from, signal);
    } finally {
      signal.removeEventListener("abort", reader.bell.ring);
      readers.leave(reader);
    }
  }

  async function* share(of: ConsumeOptions): AsyncGenerator<BusDelivery> {
    const { signal } = of;
    if (signal.aborted) return;
    const session = link.session();
    const before = dropped;
    const { group, member } = await turns.alone(async () => {
      const group = await groups.open(session, of, () => start(session, of.after));
      return { group, member: group.join(session, of) };
    });
    signal.addEventListener("abort", member.bell.ring);
    try {
      await before;
      while (!signal.aborted) {
        session.mustLive();
        if (group.isRemoved()) return;
        const delivery = group.take(member);
        if (delivery) yield delivery;
        else await member.bell.rung();
      }
    } finally {
      signal.removeEventListener("abort", member.bell.ring);
      group.leave(member);
      groups.left(group);
    }
  }

  const bus: MessageBus = {
    name: "nats",
    capabilities: { durable: true },
    async publish({ topic, payload, from, reply_to }, { keep = true } = {}) {
      const session = link.session();
      const stamp = {
        atMs: clock.now(),
        ...(from === undefined ? {} : { from }),
        ...(reply_to === undefined ? {} : { reply_to }),
      };
      // A copy: what the caller does with its bytes later changes nothing here.
      const message = { topic, payload: Uint8Array.from(payload), stamp };
      if (keep) {
        return { position: await turns.beside(() => session.keep(message)) };
      }
      await turns.alone(() => session.pass(message));
      return {};
    },
    subscribe(of) {
      mustBePosition(of.after);
      return read(of);
    },
    consume(of) {
      mustBePosition(of.after);
      return share(of);
    },
    async removeGroup(of) {
      link.session();
      await turns.alone(() => groups.remove(of));
    },
    async drop(filter) {
      const session = link.session();
      const begun = turns.alone(async () => {
        await groups.drop(filter);
        const last = await session.lastSequence();
        session.tail.forget(last);
        return last;
      });
      const done = begun.then((last) => session.remove(filter, last));
      dropped = Promise.allSettled([dropped, done]);
      await done;
    },
    health: () => notYet() ?? link.problem(),
  };
  return {
    bus,
    /** Resolves when it was tried, whatever came of it: it goes on trying. */
    connect: link.tryNow,
    async stop(): Promise<void> {
      groups.leaveAll();
      await link.stop();
      ringAll();
    },
  };
}

function mustBePosition(after: string | undefined): void {
  if (after === undefined || /^(0|\d{1,16}-\d{1,16})$/.test(after)) return;
  throw new OpenStarryError("input_invalid", {
    detail: '"after" is not a position of this bus',
    hint: 'give the position of a message, or "0" for everything that is kept',
  });
}
