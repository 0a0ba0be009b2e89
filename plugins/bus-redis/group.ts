import { randomUUID } from "node:crypto";
import type { BusDelivery, Clock } from "../../core/index.js";
import type { Attempt, Calls, Claim } from "./calls.js";
import { fitting, patternOf } from "./filters.js";

export interface GroupOptions {
  /** As the server calls it. */
  name: string;
  filter: string;
  after?: number | undefined;
  leaseMs: number;
  calls: Calls;
  clock: Pick<Clock, "after">;
  /** It takes no members any more: it was removed, or failed. */
  onOver: () => void;
}

export interface MemberOptions {
  ackWaitMs: number;
  maxInFlight: number;
}

interface Member extends MemberOptions {
  /** The attempts that it has not settled, by position. */
  out: Map<string, { attempt: number; cancel: () => void }>;
  /** The server is asked for one for it. */
  isAsked?: boolean;
  /** It waits for a delivery. */
  waiting?:
    | { resolve: (delivery: BusDelivery | undefined) => void; reject: (error: Error) => void }
    | undefined;
}

export type Group = ReturnType<typeof createGroup>;

/**
 * The members of one group in this daemon. The group itself is the server's: it is asked for deliveries when
 * there are members that wait for one, and when there may be some.
 */
export function createGroup({ name, filter, after, leaseMs, calls, clock, onOver }: GroupOptions) {
  const pattern = patternOf(filter);
  const members = new Set<Member>();
  /** Asked for at once, so that what is published from now on is delivered. */
  const joined = calls.join(name, after, randomUUID(), leaseMs);
  let born: string | undefined;
  let mayHaveMore = true;
  /** Counts what may have changed that. */
  let news = 0;
  let over: { failure?: Error } | undefined;
  let cancelDue = () => {};
  joined.then((at) => {
    born = at;
    return claim();
  }, fail);

  function finish(how: { failure?: Error }): void {
    if (over) return;
    over = how;
    cancelDue();
    onOver();
    for (const member of members) {
      for (const { cancel } of member.out.values()) cancel();
      answer(member);
    }
  }

  function fail(failure: Error): void {
    finish({ failure });
  }

  function answer(member: Member): void {
    const { waiting } = member;
    member.waiting = undefined;
    if (over?.failure) waiting?.reject(over.failure);
    else waiting?.resolve(undefined);
  }

  /** For all who wait and have room, as far as it is not asked for them already. */
  async function claim(): Promise<void> {
    if (born === undefined || over || !mayHaveMore) return;
    const asked = [...members].filter((it) => it.waiting && !it.isAsked && it.out.size < it.maxInFlight);
    if (asked.length === 0) return;
    const newsBefore = news;
    for (const member of asked) member.isAsked = true;
    try {
      const waits = asked.map(({ ackWaitMs }) => ackWaitMs);
      const claimed = await calls.claim(name, born, pattern, waits);
      for (const member of asked) member.isAsked = false;
      if (!claimed) return finish({});
      if (!claimed.more && news === newsBefore) mayHaveMore = false;
      handOut(claimed, asked, born);
      void claim();
    } catch (error) {
      fail(error as Error);
    }
  }

  function handOut({ nextDueMs, found }: Claim, asked: Member[], of: string): void {
    cancelDue();
    if (nextDueMs !== undefined) cancelDue = clock.after(nextDueMs, lookAgain);
    const unseen: Attempt[] = [];
    for (const [index, { message, position, attempt }] of found.entries()) {
      const member = asked[index];
      if (member?.waiting) deliver(member, message, position, attempt, of);
      else unseen.push({ position, attempt, isSeen: false });
    }
    // Their members left meanwhile. If that cannot be told, they are delivered again when they are due.
    calls.giveBack(name, of, 0, unseen).catch(() => {});
  }

  function deliver(
    member: Member,
    message: BusDelivery["message"],
    position: string,
    attempt: number,
    of: string,
  ): void {
    const isOut = () => member.out.get(position)?.attempt === attempt;
    const cancel = clock.after(member.ackWaitMs, () => isOut() && release(member, position));
    member.out.get(position)?.cancel();
    member.out.set(position, { attempt, cancel });
    member.waiting?.resolve({
      message,
      attempt,
      async ack() {
        await calls.ack(name, of, position, attempt);
        release(member, position);
      },
      async nack(delayMs = 0) {
        if (!isOut()) return;
        release(member, position);
        await calls.giveBack(name, of, delayMs, [{ position, attempt, isSeen: true }]);
      },
    });
    member.waiting = undefined;
  }

  function release(member: Member, position: string): void {
    member.out.get(position)?.cancel();
    if (member.out.delete(position)) void claim();
  }

  /** What it has not settled goes to others. */
  function leave(member: Member): void {
    if (!members.delete(member)) return;
    answer(member);
    const unsettled = [...member.out].map(([position, { attempt, cancel }]) => {
      cancel();
      return { position, attempt, isSeen: true };
    });
    member.out.clear();
    // If that cannot be told, they go to others when they are due.
    if (born !== undefined) calls.giveBack(name, born, 0, unsettled).catch(() => {});
  }

  function lookAgain(): void {
    news++;
    mayHaveMore = true;
    void claim();
  }

  return {
    filter,
    wants: fitting(filter),
    isEmpty: () => members.size === 0,
    /** Something may be there for it. */
    lookAgain,
    /** A position was settled by one who had it before. */
    settled(position: string): void {
      for (const member of members) release(member, position);
    },
    /** The group that was born then is gone. */
    removed(of: string): void {
      if (of === born) finish({});
    },
    fail,
    /** It is removed: its members' iterations end. */
    end: () => finish({}),
    join(options: MemberOptions): Member {
      const member = { ...options, out: new Map() };
      members.add(member);
      return member;
    },
    /** `undefined`: the group was removed, or the member has left. */
    next(member: Member): Promise<BusDelivery | undefined> {
      return new Promise((resolve, reject) => {
        member.waiting = { resolve, reject };
        if (over || !members.has(member)) answer(member);
        else void claim();
      });
    },
    leave,
    leaveAll(): void {
      for (const member of members) leave(member);
    },
  };
}
