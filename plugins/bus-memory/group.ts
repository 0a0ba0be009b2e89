import type { BusDelivery, Clock } from "../../core/index.js";
import { type Bell, createBell } from "./bell.js";
import type { KeptLog } from "./kept-log.js";

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

export interface GroupOptions {
  filter: string;
  log: KeptLog;
  clock: Pick<Clock, "after">;
  /** It begins behind this position. */
  after: number;
}

export type Group = ReturnType<typeof createGroup>;

/**
 * Where one group stands: behind `cursor` with what it has not seen, and before it with what is unsettled.
 * It holds positions only, so that it takes no memory for messages that the bus has dropped.
 */
export function createGroup({ filter, log, clock, after }: GroupOptions) {
  const members = new Set<Member>();
  const unsettled = new Map<number, Unsettled>();
  /** Positions to be delivered again now. */
  let due: number[] = [];
  let cursor = after;
  let isRemoved = false;

  const ringAll = () => {
    for (const { bell } of members) bell.ring();
  };

  function nextPosition(): number | undefined {
    for (let again = due.shift(); again !== undefined; again = due.shift()) {
      if (unsettled.has(again) && log.at(again)) return again;
      unsettled.delete(again);
    }
    const found = log.find(filter, cursor, log.newest());
    cursor = found?.position ?? log.newest();
    return found?.position;
  }

  function settle(position: number): void {
    const it = unsettled.get(position);
    if (!it) return;
    unsettled.delete(position);
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
      due = [...due, position].sort((a, b) => a - b);
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

  return {
    filter,
    isRemoved: () => isRemoved,
    isIdle: () => members.size === 0,
    ringAll,
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
    take(member: Member, ackWaitMs: number): BusDelivery | undefined {
      const position = nextPosition();
      const message = position === undefined ? undefined : log.at(position);
      if (position === undefined || !message) return undefined;
      const attempt = (unsettled.get(position)?.attempt ?? 0) + 1;
      const it: Unsettled = { attempt, member, cancel: () => {} };
      const giveBack = (delayMs: number) => {
        if (unsettled.get(position) === it && it.member) deliverAgain(position, it, delayMs);
      };
      it.cancel = clock.after(ackWaitMs, () => giveBack(0));
      unsettled.set(position, it);
      member.out.add(position);
      return {
        message,
        attempt,
        ack: async () => settle(position),
        nack: async (delayMs = 0) => giveBack(delayMs),
      };
    },
    remove(): void {
      isRemoved = true;
      for (const position of [...unsettled.keys()]) settle(position);
      ringAll();
    },
  };
}
