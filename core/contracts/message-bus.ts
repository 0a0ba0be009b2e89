import { defineSlot } from "./slot.js";

/** One published message. */
export interface BusMessage {
  /**
   * Identifies the message's place among the kept messages; pass it as `after` to continue behind it. Opaque, at
   * most 64 printable ASCII characters. Absent for a message that was not kept (`keep: false`).
   */
  position?: string;
  /** Levels separated by slashes, such as `reports/daily`; no wildcards. */
  topic: string;
  /** Bytes; by convention JSON in UTF-8. Readers share the array, so they must not change it. */
  payload: Uint8Array;
  /** When the bus accepted the message: RFC 3339, UTC. */
  at: string;
  /** The publisher, as the daemon authenticated it: `agent:ID` or `operator`. Absent when nothing vouches for it. */
  from?: string;
  /** The topic on which the publisher waits for a reply. */
  reply_to?: string;
}

/**
 * One delivery of a message to one member of a consumer group. `ack` and `nack` need no `this`: they may be passed
 * on as plain functions.
 */
export interface BusDelivery {
  readonly message: BusMessage;
  /** 1 for the first delivery, and one more for each redelivery. */
  readonly attempt: number;
  /** Acknowledges the message: this group does not get it again. Idempotent, and valid after `ackWaitMs` too. */
  ack(): Promise<void>;
  /**
   * Asks for redelivery to any member after `delayMs`, 0 by default. Does nothing once the message is
   * acknowledged or this delivery has been superseded by another one.
   */
  nack(delayMs?: number): Promise<void>;
}

export interface PublishOptions {
  /**
   * True, the default: `publish` resolves once the message is stored (durably, where `capabilities.durable`), and
   * consumer groups and later readers get it. False: only current subscribers get it.
   */
  keep?: boolean;
}

export interface SubscribeOptions {
  /** A topic, or a pattern: `+` matches any one level, a final `#` matches zero or more remaining levels. */
  filter: string;
  /**
   * Start behind this position: first every kept message after it, each once and in order, then new messages.
   * `"0"` starts at the oldest kept message. Absent: new messages only.
   */
  after?: string;
  /** Ends the subscription. */
  signal: AbortSignal;
}

export interface ConsumeOptions {
  filter: string;
  /**
   * The consumer group, whose members share the kept messages among them. The same name with another filter is
   * another group. A group is created by its first member and exists until `removeGroup`, or until a bus with too
   * many groups removes the one that has had no members for the longest time.
   */
  group: string;
  /** Where a new group starts. Absent: with new messages. An existing group continues where it was. */
  after?: string;
  /** A message that is not acknowledged within this time is delivered again, to any member. */
  ackWaitMs: number;
  /** The largest number of unacknowledged messages that this member holds at a time. */
  maxInFlight: number;
  /**
   * Ends the membership. Messages that this member has not acknowledged go to other members at once, or after
   * `ackWaitMs`.
   */
  signal: AbortSignal;
}

/**
 * Messages between agents, and from the daemon to agents.
 *
 * Order: kept messages have one order, the same for every reader. Calls take effect in the order in which they were
 * made. A subscription exists as soon as the first `next()` of its iterator was called: messages whose `publish` is
 * called after that are seen.
 *
 * Retention: the bus's own configuration limits how many messages it keeps. Reading after a position that was
 * dropped, or that an earlier bus assigned, continues at the oldest kept message behind it; groups lose dropped
 * messages too. A bus does not wait for slow readers: they get kept messages later, in order, and messages with
 * `keep: false` only as far as the bus buffers them.
 *
 * Errors: `subscribe` and `consume` throw `input_invalid` for an `after` that cannot be a position. Calls reject with
 * `bus_unavailable` when the bus cannot be reached; a message may have been published or not in that case. Iterators
 * reject as well, and the caller subscribes again with `after`.
 *
 * Authorization happens before the bus is called. Callers also enforce these limits: a topic has 1 to 256 bytes of
 * UTF-8 in at most 16 levels, none of them empty; a payload has at most 1 MiB.
 */
export interface MessageBus {
  readonly name: string;
  readonly capabilities: {
    /** Kept messages and consumer groups survive a crash of the bus and of the daemon. */
    readonly durable: boolean;
  };
  publish(
    message: { topic: string; payload: Uint8Array; from?: string; reply_to?: string },
    options?: PublishOptions,
  ): Promise<{ position?: string }>;
  subscribe(options: SubscribeOptions): AsyncIterable<BusMessage>;
  consume(options: ConsumeOptions): AsyncIterable<BusDelivery>;
  /** Deletes a consumer group and its progress. The iterations of its members end. */
  removeGroup(group: Pick<ConsumeOptions, "filter" | "group">): Promise<void>;
  /**
   * Deletes the kept messages whose topics match the filter, and the groups whose own filter, read as a topic,
   * matches it: `agents/a/#` deletes the group of `agents/a/#`, but not that of `agents/+/inbox`.
   */
  drop(filter: string): Promise<void>;
  /** Says why the bus cannot be used now; `undefined` when it can. */
  health(): string | undefined;
  /** Announces that the bus is about to be used: starts it where it starts on demand only. Returns at once. */
  wanted?(): void;
  /**
   * Returns an address at which this agent reaches the bus directly, with no more rights than it has over the API.
   * Absent, or `undefined`: there is no such address, and agents use the daemon's API.
   */
  urlFor?(agent: { agent_id: string; run_id: string }): string | undefined;
}

export const messageBus = defineSlot<MessageBus, "one">("messageBus", "one");
