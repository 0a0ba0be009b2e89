import type { NodeConnectionOptions } from "@nats-io/transport-node";
import type {
  BusDelivery,
  BusMessage,
  Clock,
  ConsumeOptions,
  Logger,
  MessageBus,
  SubscribeOptions,
} from "../../core/index.js";
import { assertPosition } from "../kit/bus/position.js";
import { type ConsumerGroups, createConsumerGroups } from "./consumer-groups.js";
import { createMessageReaders, readMessages } from "./message-readers.js";
import { createReadWriteLock } from "./read-write-lock.js";
import { createReconnectingSession } from "./reconnecting-session.js";
import { openSession, type Session } from "./session.js";
import { namesOf } from "./stream.js";

export interface NatsBusOptions {
  prefix: string;
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
  clock: Clock;
  log: Logger;
  /** Returns the address and credentials for the next attempt to connect. Rejects with a reason. */
  connection: () => Promise<NodeConnectionOptions>;
  /** The server's name in messages. */
  address: string;
  /** Says why the server does not run yet. Call `connect` when it runs. */
  whyNotYet?: (() => string | undefined) | undefined;
  onChange?: (problem: string | undefined) => void;
}

/** The time at which the stream was created, and a sequence in it. */
const POSITION = /^(0|\d{1,16}-\d{1,16})$/;

/** Creates the message bus on one NATS server with JetStream. */
// Longer than 100 lines: the methods of the bus share the session, the lock, the readers and the groups.
export function createNatsBus(options: NatsBusOptions) {
  const { clock, log, maxMessages, maxBytes, maxGroups, whyNotYet = () => undefined } = options;
  const names = namesOf(options.prefix);
  /** Calls take effect in their order. Publishes of kept messages run together, and NATS keeps their order. */
  const lock = createReadWriteLock();
  const readers = createMessageReaders();
  const groups: ConsumerGroups = createConsumerGroups({
    ...{ names, maxGroups, clock },
    session: () => connection.current(),
  });
  /** Settles when all drops so far are done, which takes time. New readers wait for it; publishers do not. */
  let dropped: Promise<unknown> = Promise.resolve();
  const notifyAll = () => {
    readers.notifyAll();
    groups.notifyAll();
  };

  const connection = createReconnectingSession({
    clock,
    log,
    address: options.address,
    whyNotYet,
    onChange: (problem) => options.onChange?.(problem),
    async open(onLost) {
      const session = await openSession({
        connection: await options.connection(),
        names,
        limits: { maxMessages, maxBytes },
        clock,
        onKept: readers.notifyAll,
        onTransient: readers.addTransient,
        onLost(why) {
          onLost(why);
          notifyAll();
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

  /** Returns the sequence behind which a reader with this `after` starts. */
  async function startSequence(session: Session, after: string | undefined): Promise<number> {
    const last = await session.lastSequence();
    return after === undefined ? last : session.sequenceOf(after, last);
  }

  async function* read({ filter, signal, after }: SubscribeOptions): AsyncGenerator<BusMessage> {
    if (signal.aborted) return;
    const session = connection.current();
    const earlierDrops = dropped;
    const { reader, start } = await lock.exclusive(async () => {
      const start = await startSequence(session, after);
      return { reader: readers.join(filter), start };
    });
    signal.addEventListener("abort", reader.changed.notify);
    try {
      await earlierDrops;
      yield* readMessages(reader, session, start, signal);
    } finally {
      signal.removeEventListener("abort", reader.changed.notify);
      readers.leave(reader);
    }
  }

  async function* consume(asked: ConsumeOptions): AsyncGenerator<BusDelivery> {
    const { signal } = asked;
    if (signal.aborted) return;
    const session = connection.current();
    const earlierDrops = dropped;
    const { group, member } = await lock.exclusive(async () => {
      const group = await groups.open(session, asked, () => startSequence(session, asked.after));
      return { group, member: group.join(session, asked) };
    });
    signal.addEventListener("abort", member.changed.notify);
    try {
      await earlierDrops;
      while (!signal.aborted) {
        session.assertOpen();
        if (group.isRemoved()) return;
        const delivery = group.take(member);
        if (delivery) yield delivery;
        else await member.changed.wait();
      }
    } finally {
      signal.removeEventListener("abort", member.changed.notify);
      group.leave(member);
      groups.onLeave(group);
    }
  }

  const bus: MessageBus = {
    name: "nats",
    capabilities: { durable: true },
    async publish({ topic, payload, from, reply_to }, { keep = true } = {}) {
      const session = connection.current();
      // A copy of the payload, since the caller may reuse its buffer.
      const message = {
        topic,
        payload: Uint8Array.from(payload),
        metadata: { atMs: clock.now(), from, reply_to },
      };
      if (keep) return { position: await lock.shared(() => session.publishKept(message)) };
      await lock.exclusive(() => session.publishTransient(message));
      return {};
    },
    subscribe(asked) {
      assertPosition(asked.after, POSITION);
      return read(asked);
    },
    consume(asked) {
      assertPosition(asked.after, POSITION);
      return consume(asked);
    },
    async removeGroup(name) {
      connection.current();
      await lock.exclusive(() => groups.remove(name));
    },
    async drop(filter) {
      const session = connection.current();
      const started = lock.exclusive(async () => {
        await groups.drop(filter);
        const last = await session.lastSequence();
        session.recent.clear(last);
        return last;
      });
      const done = started.then((last) => session.remove(filter, last));
      dropped = Promise.allSettled([dropped, done]);
      await done;
    },
    health: () => whyNotYet() ?? connection.problem(),
  };
  return {
    bus,
    /** Resolves after the first attempt, successful or not; further ones follow by themselves. */
    connect: connection.connect,
    async stop(): Promise<void> {
      groups.leaveAll();
      await connection.stop();
      notifyAll();
    },
  };
}
