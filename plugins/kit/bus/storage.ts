import type { BusMessage } from "../../../core/index.js";

/**
 * The kept messages in order. Each has an offset: a rising number that is never reused. As text it is the message's
 * `position`.
 */
export interface MessageLog {
  /**
   * Appends a message. `stored` resolves when the message is as durable as this log makes it, and readable; it
   * rejects with `bus_unavailable`.
   */
  append(message: BusMessage): { offset: number; stored: Promise<void> };
  /** Returns the last offset that was assigned. */
  lastOffset(): number;
  /** Returns the highest offset up to which every message is readable; later appends come behind it. */
  readableUpTo(): number;
  /** Returns the number of kept messages. */
  count(): number;
  at(offset: number): BusMessage | undefined;
  /**
   * Finds the first message that matches a filter behind one offset, up to and including another. One call searches
   * a limited range only: without a message, `offset` says how far it has searched.
   */
  find(filter: string, after: number, upTo: number): FindResult;
  drop(filter: string): Promise<void>;
}

export interface FindResult {
  /** The offset of the message, or the last one that was searched. */
  offset: number;
  message?: BusMessage | undefined;
}

export interface ConsumerGroupId {
  readonly filter: string;
  readonly group: string;
  /** Differs for a group that is created later under the same name. */
  readonly id: string;
}

/** The progress of one consumer group. */
export interface ConsumerGroupRecord extends ConsumerGroupId {
  /** Every message up to this offset was delivered or does not match; the group's next new one is behind it. */
  cursor: number;
  /** The messages up to the cursor that were delivered and not acknowledged, with their numbers of deliveries. */
  pending: readonly (readonly [offset: number, attempt: number])[];
}

export interface ConsumerGroupUpdate {
  cursor: number;
  /** What has changed among the pending messages. Without a number of deliveries: no longer pending. */
  pending: readonly (readonly [offset: number, attempt: number | undefined])[];
}

/** Stores the consumer groups and their progress. */
export interface ConsumerGroupStore {
  /** Returns all groups, the least recently used first. */
  all(): readonly ConsumerGroupRecord[];
  /** Creates or updates a group. Rejects with `bus_unavailable`, and has changed nothing then. */
  save(id: ConsumerGroupId, update: ConsumerGroupUpdate): Promise<void>;
  remove(id: ConsumerGroupId): Promise<void>;
}
