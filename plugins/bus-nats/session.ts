import { type JetStreamManager, jetstreamManager, type StreamInfo } from "@nats-io/jetstream";
import {
  connect,
  createInbox,
  type Msg,
  type MsgHdrs,
  type NatsConnection,
  type NodeConnectionOptions,
} from "@nats-io/transport-node";
import { type BusMessage, type Clock, sleep } from "../../core/index.js";
import { isNoStream, isNotDeleted, isUnanswered, unavailable, wordsOf } from "./failures.js";
import { type Names, openStream } from "./kept-stream.js";
import { addressOf, messageOf, type Outgoing } from "./messages.js";
import { filterSubjectOf } from "./subjects.js";
import { createTail, type Found, type Tail } from "./tail.js";

/** One who answers slower than this is taken for gone. */
const ANSWER_MS = 10_000;
const PING_MS = 5_000;
const MIN_PAYLOAD_BYTES = 2 ** 20;
/** So long the last words may take. */
const GOODBYE_MS = 1_000;

export interface SessionOptions {
  connection: NodeConnectionOptions;
  names: Names;
  limits: { maxMessages: number; maxBytes: number };
  clock: Clock;
  /** Something new in the stream. */
  onKept: () => void;
  onPassing: (message: BusMessage, behind: number) => void;
  /** Told once, in words; not for an end that was asked for. */
  onLost: (why: string) => void;
}

/**
 * One connection to the server, with what this bus has there. When it is lost it is over, and with it all that
 * was waited for on it.
 */
export interface Session {
  readonly jsm: JetStreamManager;
  readonly tail: Tail;
  isOver(): boolean;
  /** Throws `bus_unavailable` when it is over. */
  mustLive(): void;
  /** A message of the stream, as the server hands it over. */
  keptOf(subject: string, headers: MsgHdrs | undefined, data: Uint8Array, sequence: number): BusMessage;
  /** The sequence that a position stands for; 0, before them all, for one of another stream. */
  sequenceOf(position: string, last: number): number;
  lastSequence(): Promise<number>;
  /** Resolves with its position when the stream has it. */
  keep(message: Outgoing): Promise<string>;
  /** For those who are there, behind all that is confirmed. Resolves when the server has it. */
  pass(message: Outgoing): Promise<void>;
  find(filter: string, after: number, upTo: number): Promise<Found | undefined>;
  /** Settles a delivery: one that its group has no more settles nothing. */
  settle(reply: string, how: string): Promise<void>;
  /** As `settle`, and nobody waits for the answer. */
  tell(reply: string, how: string): void;
  /** One request to the server's own, with its answers; the returned function ends that. */
  ask(subject: string, request: unknown, onAnswer: (answer: Msg) => void): () => void;
  /**
   * Removes what is kept for this filter up to a sequence, one by one: a purge of some subjects takes consumers of
   * others past messages that they have not seen (nats-server 2.9.10).
   */
  remove(filter: string, upTo: number): Promise<void>;
  /** What was told is sent before. */
  close(): Promise<void>;
}

/** Rejects with a sentence that says why not. No credentials are in it. */
export async function openSession(options: SessionOptions): Promise<Session> {
  const { names } = options;
  const nc = await connect({
    ...options.connection,
    name: names.stream,
    reconnect: false,
    noAsyncTraces: true,
    ignoreClusterUpdates: true,
    pingInterval: PING_MS,
    timeout: ANSWER_MS,
  });
  try {
    const { max_payload: maxBytes = 0 } = nc.info ?? {};
    if (maxBytes < MIN_PAYLOAD_BYTES) {
      throw new Error(
        `it takes messages of at most ${maxBytes} bytes: set max_payload to 1MB or more in its config`,
      );
    }
    const jsm = await jetstreamManager(nc, { timeout: ANSWER_MS });
    const stream = await openStream(jsm, names, options.limits);
    const session = createSession(nc, jsm, stream, options);
    session.tail.reach(await session.lastSequence());
    // A subscription may have been refused meanwhile.
    session.mustLive();
    return session;
  } catch (error) {
    await nc.close();
    throw error;
  }
}

function createSession(
  nc: NatsConnection,
  jsm: JetStreamManager,
  stream: StreamInfo,
  { names, clock, onKept, onPassing, onLost }: SessionOptions,
): Session {
  const tail = createTail();
  const epoch = Date.parse(stream.created);
  const maxBytes = nc.info?.max_payload ?? 0;
  let over: string | undefined;
  /** The greatest sequence that the server has confirmed to us. */
  let confirmed = 0;

  const positionOf = (sequence: number) => `${epoch}-${sequence}`;
  const keptOf = (subject: string, headers: MsgHdrs | undefined, data: Uint8Array, sequence: number) =>
    messageOf({ subject: names.rest(subject), headers, data }, positionOf(sequence)).message;
  const end = (why: string, isAsked = false) => {
    if (over !== undefined) return;
    over = why;
    void nc.close();
    if (!isAsked) onLost(why);
  };

  /** What goes wrong with the server is `bus_unavailable`, and what is gone from it ends the session. */
  async function attempt<T>(act: () => Promise<T>): Promise<T> {
    try {
      if (over !== undefined) throw unavailable(over);
      return await act();
    } catch (error) {
      if (isUnanswered(error) || isNoStream(error)) end(`the stream ${names.stream} is gone from the server`);
      throw over === undefined ? unavailable(wordsOf(error), error) : unavailable(over);
    }
  }

  /** The first message at or after a sequence. */
  const next = (query: { seq: number; next_by_subj: string }) => jsm.streams.getMessage(names.stream, query);

  nc.subscribe(`${names.live}.>`, {
    callback(error, { subject, headers, data }) {
      if (error) return end(wordsOf(error));
      const sequence = Number(headers?.get("Nats-Sequence"));
      if (!sequence) return;
      tail.append(sequence, keptOf(subject, headers, data, sequence));
      onKept();
    },
  });
  nc.subscribe(`${names.passing}.>`, {
    callback(error, { subject, headers, data }) {
      if (error) return end(wordsOf(error));
      const { message, behind } = messageOf({ subject: names.rest(subject), headers, data });
      onPassing(message, behind);
    },
  });
  // Another daemon may make it anew, and its sequences begin anew then. Who may not listen to this is told later, by
  // the next call.
  nc.subscribe(`$JS.EVENT.ADVISORY.STREAM.DELETED.${names.stream}`, {
    callback: (error) => void (error ?? end(`the stream ${names.stream} was deleted from the server`)),
  });
  void nc.closed().then((error) => end(error ? wordsOf(error) : "the connection was lost"));

  return {
    jsm,
    tail,
    isOver: () => over !== undefined,
    mustLive() {
      if (over !== undefined) throw unavailable(over);
    },
    keptOf,
    sequenceOf(position, last) {
      const [of, sequence] = position.split("-").map(Number);
      return of === epoch && sequence !== undefined && sequence <= last ? sequence : 0;
    },
    lastSequence: () => attempt(async () => (await jsm.streams.info(names.stream)).state.last_seq),
    keep: (message) =>
      attempt(async () => {
        const { subject, headers } = addressOf(message, maxBytes);
        const options = { timeout: ANSWER_MS, ...(headers ? { headers } : {}) };
        const answer = await nc.request(`${names.kept}.${subject}`, message.payload, options);
        const { seq, error } = answer.json<{ seq?: number; error?: { description: string } }>();
        if (seq === undefined) throw new Error(error?.description ?? "the server did not keep it");
        confirmed = Math.max(confirmed, seq);
        return positionOf(seq);
      }),
    pass: ({ stamp, ...message }) =>
      attempt(async () => {
        const behind = Math.max(confirmed, tail.last());
        const { subject, headers } = addressOf({ ...message, stamp: { ...stamp, behind } }, maxBytes);
        nc.publish(`${names.passing}.${subject}`, message.payload, headers ? { headers } : {});
        await nc.flush();
      }),
    remove: (filter, upTo) =>
      attempt(async () => {
        const query = { seq: 1, next_by_subj: `${names.kept}.${filterSubjectOf(filter)}` };
        for (let found = await next(query); found && found.seq <= upTo; ) {
          const { seq } = found;
          const removed = jsm.streams.deleteMessage(names.stream, seq).catch(async (error) => {
            // It made room for a newer one, or another daemon was quicker.
            if (!isNotDeleted(error) || (await next({ ...query, seq }))?.seq === seq) throw error;
          });
          [found] = await Promise.all([next({ ...query, seq: seq + 1 }), removed]);
        }
      }),
    async find(filter, after, upTo) {
      if (tail.covers(after)) return tail.find(filter, after, upTo);
      const query = { seq: after + 1, next_by_subj: `${names.kept}.${filterSubjectOf(filter)}` };
      const found = await attempt(() => next(query));
      if (!found || found.seq > upTo) return undefined;
      const { subject, header: headers, data, seq: sequence } = found;
      return { sequence, message: keptOf(subject, headers, data, sequence) };
    },
    async settle(reply, how) {
      try {
        if (over !== undefined) throw unavailable(over);
        await nc.request(reply, how, { timeout: ANSWER_MS });
      } catch (error) {
        if (!isUnanswered(error))
          throw over === undefined ? unavailable(wordsOf(error), error) : unavailable(over);
      }
    },
    tell(reply, how) {
      if (!nc.isClosed()) nc.publish(reply, how);
    },
    ask(subject, request, onAnswer) {
      // Lost, and not told yet: whoever waits for the answer is about to be.
      if (nc.isClosed()) return () => {};
      const inbox = createInbox();
      const subscription = nc.subscribe(inbox, {
        callback: (error, answer) => void (error ?? onAnswer(answer)),
      });
      nc.publish(subject, JSON.stringify(request), { reply: inbox });
      return () => subscription.unsubscribe();
    },
    async close() {
      const enough = sleep(clock, GOODBYE_MS);
      if (over === undefined) await Promise.race([nc.flush(), nc.closed(), enough]).catch(() => {});
      end("it is stopped", true);
      await Promise.race([nc.closed(), enough]);
    },
  };
}
