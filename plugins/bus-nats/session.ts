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
import { errorText, isDeleteFailed, isNoResponders, isStreamNotFound, unavailable } from "./failures.js";
import { decodeMessage, encodeMessage, type Outgoing } from "./messages.js";
import { createRecentCache, type Found, type RecentCache } from "./recent-cache.js";
import { type Names, openStream } from "./stream.js";
import { filterSubjectOf } from "./subjects.js";

/** A server that takes longer to answer counts as gone. */
const ANSWER_TIMEOUT_MS = 10_000;
const PING_MS = 5_000;
const MIN_PAYLOAD_BYTES = 2 ** 20;
/** How long closing waits for the last messages to be sent. */
const FLUSH_TIMEOUT_MS = 1_000;

export interface SessionOptions {
  connection: NodeConnectionOptions;
  names: Names;
  limits: { maxMessages: number; maxBytes: number };
  clock: Clock;
  /** Called when the stream has a new message. */
  onKept: () => void;
  onTransient: (message: BusMessage, afterSequence: number) => void;
  /** Called once with the reason when the session ends, unless `close` ended it. */
  onLost: (why: string) => void;
}

/** One connection to the server, with the stream of this bus. A lost connection ends it, and all its requests. */
export interface Session {
  readonly jsm: JetStreamManager;
  readonly recent: RecentCache;
  isOver(): boolean;
  /** Throws `bus_unavailable` when the session is over. */
  assertOpen(): void;
  /** Decodes a message of the stream. */
  keptMessage(subject: string, headers: MsgHdrs | undefined, data: Uint8Array, sequence: number): BusMessage;
  /** Returns the sequence of a position; 0, before all messages, for a position of another stream. */
  sequenceOf(position: string, last: number): number;
  lastSequence(): Promise<number>;
  /** Publishes a kept message. Resolves with its position when the stream has stored it. */
  publishKept(message: Outgoing): Promise<string>;
  /** Publishes a message with `keep: false` behind all confirmed ones. Resolves when the server has it. */
  publishTransient(message: Outgoing): Promise<void>;
  find(filter: string, after: number, upTo: number): Promise<Found | undefined>;
  /** Acknowledges a delivery. Has no effect when the consumer does not have it any more. */
  acknowledge(reply: string, ack: string): Promise<void>;
  /** Publishes to a reply subject without waiting for an answer. */
  send(reply: string, text: string): void;
  /** Sends a request to the server's API, and calls back with its answers. Returns a function that ends that. */
  request(subject: string, request: unknown, onAnswer: (answer: Msg) => void): () => void;
  /**
   * Deletes the kept messages that match a filter up to a sequence, one by one: a purge by subject makes consumers of
   * other subjects skip messages (nats-server 2.9.10).
   */
  remove(filter: string, upTo: number): Promise<void>;
  /** Closes the connection when everything that was sent is out. */
  close(): Promise<void>;
}

/** Connects and opens the stream. Rejects with a reason that contains no credentials. */
export async function openSession(options: SessionOptions): Promise<Session> {
  const { names } = options;
  const nc = await connect({
    ...options.connection,
    name: names.stream,
    reconnect: false,
    noAsyncTraces: true,
    ignoreClusterUpdates: true,
    pingInterval: PING_MS,
    timeout: ANSWER_TIMEOUT_MS,
  });
  try {
    const { max_payload: maxBytes = 0 } = nc.info ?? {};
    if (maxBytes < MIN_PAYLOAD_BYTES) {
      throw new Error(
        `the server's limit for a message is ${maxBytes} bytes: set max_payload to 1MB or more in its config`,
      );
    }
    const jsm = await jetstreamManager(nc, { timeout: ANSWER_TIMEOUT_MS });
    const stream = await openStream(jsm, names, options.limits);
    const session = createSession(nc, jsm, stream, options);
    session.recent.advance(await session.lastSequence());
    // The server may have refused a subscription meanwhile.
    session.assertOpen();
    return session;
  } catch (error) {
    await nc.close();
    throw error;
  }
}

// Longer than 100 lines: the parts of one connection share its state, and each is a few lines.
function createSession(
  nc: NatsConnection,
  jsm: JetStreamManager,
  stream: StreamInfo,
  { names, clock, onKept, onTransient, onLost }: SessionOptions,
): Session {
  const recent = createRecentCache();
  const epoch = Date.parse(stream.created);
  const maxBytes = nc.info?.max_payload ?? 0;
  /** Why the session is over. */
  let over: string | undefined;
  /** The highest sequence that the server has confirmed to this session. */
  let confirmed = 0;

  const positionOf = (sequence: number) => `${epoch}-${sequence}`;
  const keptMessage: Session["keptMessage"] = (subject, headers, data, sequence) =>
    decodeMessage({ subject: names.withoutPrefix(subject), headers, data }, positionOf(sequence)).message;
  const end = (why: string, isRequested = false) => {
    if (over !== undefined) return;
    over = why;
    void nc.close();
    if (!isRequested) onLost(why);
  };
  const failure = (error: unknown) =>
    over === undefined ? unavailable(errorText(error), error) : unavailable(over);
  const assertOpen = () => {
    if (over !== undefined) throw unavailable(over);
  };

  /** Turns errors into `bus_unavailable`, and ends the session when the stream does not exist any more. */
  async function attempt<T>(act: () => Promise<T>): Promise<T> {
    try {
      assertOpen();
      return await act();
    } catch (error) {
      if (isNoResponders(error) || isStreamNotFound(error))
        end(`the stream ${names.stream} is gone from the server`);
      throw failure(error);
    }
  }

  /** Returns the first message of a subject at or after a sequence. */
  const getNext = (query: { seq: number; next_by_subj: string }) =>
    jsm.streams.getMessage(names.stream, query);

  nc.subscribe(`${names.live}.>`, {
    callback(error, { subject, headers, data }) {
      if (error) return end(errorText(error));
      const sequence = Number(headers?.get("Nats-Sequence"));
      if (!sequence) return;
      recent.append(sequence, keptMessage(subject, headers, data, sequence));
      onKept();
    },
  });
  nc.subscribe(`${names.transient}.>`, {
    callback(error, { subject, headers, data }) {
      if (error) return end(errorText(error));
      const decoded = decodeMessage({ subject: names.withoutPrefix(subject), headers, data });
      onTransient(decoded.message, decoded.afterSequence);
    },
  });
  // Another daemon may create the stream again, whose sequences start from 1 then. Without permission to subscribe to
  // this, the next call finds out.
  nc.subscribe(`$JS.EVENT.ADVISORY.STREAM.DELETED.${names.stream}`, {
    callback: (error) => void (error ?? end(`the stream ${names.stream} was deleted from the server`)),
  });
  void nc.closed().then((error) => end(error ? errorText(error) : "lost the connection"));

  return {
    jsm,
    recent,
    isOver: () => over !== undefined,
    assertOpen,
    keptMessage,
    sequenceOf(position, last) {
      const [ofEpoch, sequence] = position.split("-").map(Number);
      return ofEpoch === epoch && sequence !== undefined && sequence <= last ? sequence : 0;
    },
    lastSequence: () => attempt(async () => (await jsm.streams.info(names.stream)).state.last_seq),
    publishKept: (message) =>
      attempt(async () => {
        const { subject, headers } = encodeMessage(message, maxBytes);
        const options = { timeout: ANSWER_TIMEOUT_MS, headers };
        const answer = await nc.request(`${names.kept}.${subject}`, message.payload, options);
        const { seq, error } = answer.json<{ seq?: number; error?: { description: string } }>();
        if (seq === undefined) throw new Error(error?.description ?? "the server did not store the message");
        confirmed = Math.max(confirmed, seq);
        return positionOf(seq);
      }),
    publishTransient: ({ metadata, ...message }) =>
      attempt(async () => {
        const afterSequence = Math.max(confirmed, recent.lastSequence());
        const outgoing = { ...message, metadata: { ...metadata, afterSequence } };
        const { subject, headers } = encodeMessage(outgoing, maxBytes);
        nc.publish(`${names.transient}.${subject}`, message.payload, { headers });
        await nc.flush();
      }),
    remove: (filter, upTo) =>
      attempt(async () => {
        const query = { seq: 1, next_by_subj: `${names.kept}.${filterSubjectOf(filter)}` };
        for (let found = await getNext(query); found && found.seq <= upTo; ) {
          const { seq } = found;
          const removed = jsm.streams.deleteMessage(names.stream, seq).catch(async (error) => {
            // No error when it is gone: evicted, or deleted by another daemon.
            if (!isDeleteFailed(error) || (await getNext({ ...query, seq }))?.seq === seq) throw error;
          });
          [found] = await Promise.all([getNext({ ...query, seq: seq + 1 }), removed]);
        }
      }),
    async find(filter, after, upTo) {
      if (recent.covers(after)) return recent.find(filter, after, upTo);
      const query = { seq: after + 1, next_by_subj: `${names.kept}.${filterSubjectOf(filter)}` };
      const found = await attempt(() => getNext(query));
      if (!found || found.seq > upTo) return undefined;
      const { subject, header: headers, data, seq: sequence } = found;
      return { sequence, message: keptMessage(subject, headers, data, sequence) };
    },
    async acknowledge(reply, ack) {
      try {
        assertOpen();
        await nc.request(reply, ack, { timeout: ANSWER_TIMEOUT_MS });
      } catch (error) {
        if (!isNoResponders(error)) throw failure(error);
      }
    },
    send(reply, text) {
      if (!nc.isClosed()) nc.publish(reply, text);
    },
    request(subject, request, onAnswer) {
      // A closed connection ends the members that wait for the answer.
      if (nc.isClosed()) return () => {};
      const inbox = createInbox();
      const subscription = nc.subscribe(inbox, {
        callback: (error, answer) => void (error ?? onAnswer(answer)),
      });
      nc.publish(subject, JSON.stringify(request), { reply: inbox });
      return () => subscription.unsubscribe();
    },
    async close() {
      const timeout = sleep(clock, FLUSH_TIMEOUT_MS);
      if (over === undefined) await Promise.race([nc.flush(), nc.closed(), timeout]).catch(() => {});
      end("the bus is stopped", true);
      await Promise.race([nc.closed(), timeout]);
    },
  };
}
