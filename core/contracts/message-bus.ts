import { defineSlot } from "./slot.js";

/** One message as it was published. */
export interface BusMessage {
  /**
   * Where it stands on the bus: opaque, of at most 64 printable ASCII characters, and good for `after`.
   * Absent for a message that was not kept (`keep: false`).
   */
  position?: string;
  /** Levels between slashes, as in `reports/daily`; no wildcards. */
  topic: string;
  /** Bytes; JSON in UTF-8 by custom. Readers share them: not to be changed. */
  payload: Uint8Array;
  /** RFC 3339, UTC: when the bus took it. */
  at: string;
  /** Who published it, as the daemon knows it: `agent:ID`, `operator`. Absent: nobody vouches for it. */
  from?: string;
  /** Where an answer is waited for. */
  reply_to?: string;
}

/** A message for one member of a group, until it is settled. `ack` and `nack` may be called apart from it. */
export interface BusDelivery {
  readonly message: BusMessage;
  /** 1 for the first time. */
  readonly attempt: number;
  /** It is done with, and not delivered to this group again. Safe to call twice, and late. */
  ack(): Promise<void>;
  /** Deliver it again, to whichever member, after `delayMs`. Default 0. Nothing, once it is settled or goes round again. */
  nack(delayMs?: number): Promise<void>;
}

export interface PublishOptions {
  /**
   * True, the default: it resolves when the message is kept (durably, where `capabilities.durable`), so
   * that groups and later readers get it. False: it goes to those who are subscribed now.
   */
  keep?: boolean;
}

export interface SubscribeOptions {
  /** A topic, or one with `+` for any one level, and a final `#` for all levels from there on, none included. */
  filter: string;
  /**
   * All kept messages after this position first, each once and in order, then what comes. `"0"` is before
   * them all. Absent: what comes.
   */
  after?: string;
  /** Ends the subscription. */
  signal: AbortSignal;
}

export interface ConsumeOptions {
  filter: string;
  /**
   * Members of a group share its kept messages. The same name with another filter is another group. It is
   * there from its first member's coming until `removeGroup`, or until a bus that has too many groups
   * forgets the one that has been without members for longest.
   */
  group: string;
  /** Where a new group begins. Absent: with what comes. A group that is there goes on where it was. */
  after?: string;
  /** What is not settled for so long is delivered again, to whichever member. */
  ackWaitMs: number;
  /** A member gets no more than this before it has settled one. */
  maxInFlight: number;
  /** Ends the membership: what this member has not settled goes to others at once, or after `ackWaitMs`. */
  signal: AbortSignal;
}

/**
 * Messages between agents, and from the daemon to them.
 *
 * Kept messages stand in one order, the same for every reader. How many are kept is the bus's own
 * configuration; a position that has been dropped, or that an earlier bus gave out, reads on at the oldest
 * kept one after it, and what was dropped is lost to groups too. An iterator is subscribed when its first
 * `next()` was called: what is published after the promise of that call was made is seen. A reader that is
 * too slow is not waited for: it gets kept messages later, in order, and those with `keep: false` only as
 * far as the bus holds some of them for it. Calls take effect in the order in which they were made.
 *
 * Errors: `subscribe` and `consume` throw `input_invalid` for an `after` that cannot be a position. Calls
 * reject with `bus_unavailable` when the bus cannot be reached; then a message may have been published or
 * not, and iterators reject: the caller asks again, with `after`.
 *
 * Who may use which topic is decided before a bus is asked. Limits, held by the callers: a topic has 1 to
 * 256 bytes of UTF-8 in at most 16 levels, none of them empty; a payload has at most 1 MiB.
 */
export interface MessageBus {
  readonly name: string;
  readonly capabilities: {
    /** Kept messages and groups are still there after a crash of the bus, and of the daemon. */
    readonly durable: boolean;
  };
  publish(
    message: { topic: string; payload: Uint8Array; from?: string; reply_to?: string },
    options?: PublishOptions,
  ): Promise<{ position?: string }>;
  subscribe(options: SubscribeOptions): AsyncIterable<BusMessage>;
  consume(options: ConsumeOptions): AsyncIterable<BusDelivery>;
  /** Forgets a group and where it stood. Its members' iterations end. */
  removeGroup(group: Pick<ConsumeOptions, "filter" | "group">): Promise<void>;
  /**
   * Forgets what is kept under topics that fit the filter, and the groups whose filter, read as a topic, fits
   * it: `agents/a/#` takes the group of `agents/a/#` with it, and not that of `agents/+/inbox`.
   */
  drop(filter: string): Promise<void>;
  /** Why it cannot be used now, in words; `undefined` when it can. */
  health(): string | undefined;
  /** Somebody is about to use it: brings it up, where that was left until it is needed. Returns at once. */
  wanted?(): void;
  /**
   * An address at which this agent reaches the bus itself, and on it no more than it may; absent, or
   * `undefined`: there is none, and agents use the daemon's API.
   */
  urlFor?(agent: { agent_id: string; run_id: string }): string | undefined;
}

export const messageBus = defineSlot<MessageBus, "one">("messageBus", "one");
