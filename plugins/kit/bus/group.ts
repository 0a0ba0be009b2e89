import type { BusDelivery, BusMessage, Clock } from "../../../core/index.js";
import { type Bell, createBell } from "./bell.js";
import type { GroupBook, GroupName, GroupRecord, KeptLog } from "./storage.js";

/** More than so much is not left for an `ack` to save. */
const MAX_UNSAVED = 2_000;

/** A message that was delivered at least once and is not done with. */
interface Unsettled {
  attempt: number;
  /** Who has it; absent while it waits for its next delivery. */
  member?: Member | undefined;
  cancel: () => void;
}

export interface Member {
  bell: Bell;
  /** Positions that it has not settled. */
  out: Set<number>;
}

/** Names one delivery, also for one who has not seen it itself. */
export interface Ticket extends GroupName {
  position: number;
  attempt: number;
}

export interface TicketedDelivery extends BusDelivery {
  readonly ticket: Ticket;
}

export interface GroupOptions {
  record: GroupRecord;
  log: KeptLog;
  book: GroupBook;
  clock: Pick<Clock, "after">;
}

export type Group = ReturnType<typeof createGroup>;

/**
 * Where one group stands: behind `cursor` with what it has not seen, and before it with what is unsettled.
 * It holds positions only, so that it takes no memory for messages that the bus has dropped.
 */
export function createGroup({ record, log, book, clock }: GroupOptions) {
  const { filter } = record;
  const name: GroupName = { filter, group: record.group, id: record.id };
  const members = new Set<Member>();
  const unsettled = new Map<number, Unsettled>(
    record.unsettled.map(([position, attempt]) => [position, { attempt, cancel: () => {} }]),
  );
  /** Positions to be delivered again now. */
  const due: number[] = [...unsettled.keys()].sort((a, b) => a - b);
  let cursor = record.cursor;
  let isRemoved = false;
  /** What the book does not know yet. */
  let unsaved = new Set<number>();
  let savedCursor: number | undefined;
  let saved = Promise.resolve();

  const ringAll = () => {
    for (const { bell } of members) bell.ring();
  };

  function next(): { position: number; message: BusMessage } | undefined {
    for (let position = due.shift(); position !== undefined; position = due.shift()) {
      const message = unsettled.has(position) ? log.at(position) : undefined;
      if (message) return { position, message };
      forget(position);
    }
    const { position, message } = log.find(filter, cursor, log.newest());
    cursor = Math.max(cursor, position);
    return message && { position, message };
  }

  function forget(position: number): void {
    if (unsettled.delete(position)) unsaved.add(position);
  }

  function settle(position: number): void {
    const it = unsettled.get(position);
    if (!it) return;
    forget(position);
    it.cancel();
    it.member?.out.delete(position);
    it.member?.bell.ring();
  }

  function deliverAgain(position: number, it: Unsettled, delayMs: number): void {
    it.cancel();
    it.member?.out.delete(position);
    it.member?.bell.ring();
    it.member = undefined;
    const now = () => {
      due.splice(placeIn(due, position), 0, position);
      ringAll();
    };
    if (delayMs > 0) it.cancel = clock.after(delayMs, now);
    else now();
    forgetDropped();
  }

  /** What the bus has dropped meanwhile is not delivered again, however long its delay. */
  function forgetDropped(): void {
    if (unsettled.size <= log.count()) return;
    for (const [position, { member }] of unsettled) if (!member && !log.at(position)) settle(position);
  }

  /** Resolves when the book knows all that has happened so far. */
  function save(): Promise<void> {
    if (isRemoved || (unsaved.size === 0 && cursor === savedCursor)) return saved;
    const positions = unsaved;
    unsaved = new Set();
    savedCursor = cursor;
    const changes = [...positions].map((position) => [position, unsettled.get(position)?.attempt] as const);
    saved = book.save(name, { cursor, unsettled: changes }).catch((error: unknown) => {
      for (const position of positions) unsaved.add(position);
      savedCursor = undefined;
      throw error;
    });
    return saved;
  }

  async function ack(position: number): Promise<void> {
    settle(position);
    await save();
  }

  function nack({ position, attempt }: Pick<Ticket, "position" | "attempt">, delayMs: number): void {
    const it = unsettled.get(position);
    if (it?.member && it.attempt === attempt) deliverAgain(position, it, delayMs);
  }

  return {
    name,
    isRemoved: () => isRemoved,
    isIdle: () => members.size === 0,
    /** There is more to look at than one `take` did. */
    isBehind: () => due.length > 0 || cursor < log.newest(),
    ringAll,
    save,
    ack,
    nack,
    join(): Member {
      const member = { bell: createBell(), out: new Set<number>() };
      members.add(member);
      return member;
    },
    leave(member: Member): void {
      members.delete(member);
      for (const position of [...member.out]) {
        const it = unsettled.get(position);
        if (it) deliverAgain(position, it, 0);
      }
    },
    take(member: Member, ackWaitMs: number): TicketedDelivery | undefined {
      const found = next();
      if (!found) return undefined;
      const { position, message } = found;
      const attempt = (unsettled.get(position)?.attempt ?? 0) + 1;
      const ticket: Ticket = { ...name, position, attempt };
      const cancel = clock.after(ackWaitMs, () => nack(ticket, 0));
      unsettled.set(position, { attempt, member, cancel });
      unsaved.add(position);
      // What is not saved is delivered once more after a crash, as if for the first time.
      if (unsaved.size > MAX_UNSAVED) save().catch(() => {});
      member.out.add(position);
      return {
        message,
        attempt,
        ticket,
        ack: () => ack(position),
        nack: async (delayMs = 0) => nack(ticket, delayMs),
      };
    },
    /** Its members' iterations end. The book is the caller's to change. */
    remove(): void {
      isRemoved = true;
      for (const position of [...unsettled.keys()]) settle(position);
      ringAll();
    },
  };
}

/** Where a position belongs among others, which are in order. */
function placeIn(positions: readonly number[], position: number): number {
  let [low, high] = [0, positions.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((positions[middle] ?? 0) < position) low = middle + 1;
    else high = middle;
  }
  return low;
}
