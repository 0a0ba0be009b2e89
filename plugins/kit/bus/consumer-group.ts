import type { BusDelivery, BusMessage, Clock } from "../../../core/index.js";
import { createGroupProgress } from "./group-progress.js";
import { createSignal, type Signal } from "./signal.js";
import type { ConsumerGroupId, ConsumerGroupRecord, ConsumerGroupStore, MessageLog } from "./storage.js";

/** Above this number of unsaved changes they are saved without waiting for the next `ack`. */
const MAX_UNSAVED = 2_000;

/** A message that was delivered and is not acknowledged yet. */
interface Pending {
  attempt: number;
  /** The member that has it. Absent while it waits for redelivery. */
  member?: Member | undefined;
  /** Cancels the timer that redelivers it. */
  cancel: () => void;
}

export interface Member {
  changed: Signal;
  /** The offsets that this member has not acknowledged. */
  inFlight: Set<number>;
}

/** Identifies one delivery, so that another process can acknowledge it. Sent as is between daemon and broker. */
export interface DeliveryTag extends ConsumerGroupId {
  position: number;
  attempt: number;
}

export interface TaggedDelivery extends BusDelivery {
  readonly tag: DeliveryTag;
}

export interface ConsumerGroupOptions {
  record: ConsumerGroupRecord;
  log: MessageLog;
  store: ConsumerGroupStore;
  clock: Pick<Clock, "after">;
}

export type ConsumerGroup = ReturnType<typeof createConsumerGroup>;

/**
 * Creates one consumer group, which hands each kept message to one of its members until it is acknowledged. It
 * holds offsets, not messages, so that dropped messages take no memory here.
 */
// Longer than 100 lines: the state of a group is one closure, and every function here is a few lines on it.
export function createConsumerGroup({ record, log, store, clock }: ConsumerGroupOptions) {
  const { filter, group } = record;
  const id: ConsumerGroupId = { filter, group, id: record.id };
  const members = new Set<Member>();
  const pending = new Map<number, Pending>(
    record.pending.map(([offset, attempt]) => [offset, { attempt, cancel: () => {} }]),
  );
  /** The offsets to deliver again now, in order. */
  const redeliveries: number[] = [...pending.keys()].sort((a, b) => a - b);
  let cursor = record.cursor;
  let isRemoved = false;
  const progress = createGroupProgress({
    id,
    store,
    cursor: () => cursor,
    attemptOf: (offset) => pending.get(offset)?.attempt,
  });

  const notifyAll = () => {
    for (const { changed } of members) changed.notify();
  };

  function nextMessage(): { offset: number; message: BusMessage } | undefined {
    for (let offset = redeliveries.shift(); offset !== undefined; offset = redeliveries.shift()) {
      const message = pending.has(offset) ? log.at(offset) : undefined;
      if (message) return { offset, message };
      // Acknowledged or dropped while it waited.
      forget(offset);
    }
    const { offset, message } = log.find(filter, cursor, log.readableUpTo());
    cursor = Math.max(cursor, offset);
    return message && { offset, message };
  }

  function forget(offset: number): void {
    if (pending.delete(offset)) progress.mark(offset);
  }

  /** Ends the redelivery timer and takes the message from its member, which has room for another one now. */
  function release(offset: number, { cancel, member }: Pending): void {
    cancel();
    member?.inFlight.delete(offset);
    member?.changed.notify();
  }

  function complete(offset: number): void {
    const it = pending.get(offset);
    if (!it) return;
    forget(offset);
    release(offset, it);
  }

  function redeliver(offset: number, it: Pending, delayMs: number): void {
    release(offset, it);
    it.member = undefined;
    const queue = () => {
      redeliveries.splice(insertionIndex(redeliveries, offset), 0, offset);
      notifyAll();
    };
    if (delayMs > 0) it.cancel = clock.after(delayMs, queue);
    else queue();
    forgetDropped();
  }

  /** Forgets pending messages that the log has dropped, even when their redelivery is far off: bounds `pending`. */
  function forgetDropped(): void {
    if (pending.size <= log.count()) return;
    for (const [offset, { member }] of pending) if (!member && !log.at(offset)) complete(offset);
  }

  const save = () => (isRemoved ? progress.lastSave() : progress.save());

  async function ack(offset: number): Promise<void> {
    complete(offset);
    await save();
  }

  function nack({ position, attempt }: Pick<DeliveryTag, "position" | "attempt">, delayMs: number): void {
    const it = pending.get(position);
    if (it?.member && it.attempt === attempt) redeliver(position, it, delayMs);
  }

  return {
    id,
    isRemoved: () => isRemoved,
    isIdle: () => members.size === 0,
    /** Returns whether `deliver` may find a message although its last search found none: a search is limited. */
    hasMore: () => redeliveries.length > 0 || cursor < log.readableUpTo(),
    notifyAll,
    save,
    ack,
    nack,
    join(): Member {
      const member = { changed: createSignal(), inFlight: new Set<number>() };
      members.add(member);
      return member;
    },
    leave(member: Member): void {
      members.delete(member);
      for (const offset of [...member.inFlight]) {
        const it = pending.get(offset);
        if (it) redeliver(offset, it, 0);
      }
    },
    /** Delivers the next message to this member; `undefined` when there is none. */
    deliver(member: Member, ackWaitMs: number): TaggedDelivery | undefined {
      const found = nextMessage();
      if (!found) return undefined;
      const { offset, message } = found;
      const attempt = (pending.get(offset)?.attempt ?? 0) + 1;
      const tag: DeliveryTag = { ...id, position: offset, attempt };
      const cancel = clock.after(ackWaitMs, () => nack(tag, 0));
      pending.set(offset, { attempt, member, cancel });
      progress.mark(offset);
      // After a crash, a delivery that was not saved is repeated with the same attempt number.
      if (progress.unsavedCount() > MAX_UNSAVED) save().catch(() => {});
      member.inFlight.add(offset);
      return {
        message,
        attempt,
        tag,
        ack: () => ack(offset),
        nack: async (delayMs = 0) => nack(tag, delayMs),
      };
    },
    /** Ends the iterations of all members. The caller removes the group from the store. */
    remove(): void {
      isRemoved = true;
      for (const offset of [...pending.keys()]) complete(offset);
      notifyAll();
    },
  };
}

/** Returns the index at which an offset belongs in a sorted list. */
function insertionIndex(offsets: readonly number[], offset: number): number {
  let [low, high] = [0, offsets.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((offsets[middle] ?? 0) < offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
