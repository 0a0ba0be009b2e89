import { randomUUID } from "node:crypto";
import type { BusDelivery, Clock } from "../../core/index.js";
import type { Claim, Commands, ReturnedDelivery } from "./commands.js";
import { createTopicMatcher, luaPatternOf } from "./topic-patterns.js";

export interface ConsumerGroupOptions {
  /** The name of the group on the server. */
  name: string;
  filter: string;
  after?: number | undefined;
  leaseMs: number;
  commands: Commands;
  clock: Pick<Clock, "after">;
  /** Called when the group takes no members any more: it was removed, or has failed. */
  onOver: () => void;
}

export interface MemberOptions {
  ackWaitMs: number;
  maxInFlight: number;
}

interface Member extends MemberOptions {
  /** The deliveries that the member has not acknowledged, by position. */
  inFlight: Map<string, { attempt: number; cancel: () => void }>;
  /** Whether a claim for this member is under way. */
  isClaiming?: boolean;
  /** Set while the member waits for a delivery. */
  waiting?:
    | { resolve: (delivery: BusDelivery | undefined) => void; reject: (error: Error) => void }
    | undefined;
}

export type ConsumerGroup = ReturnType<typeof createConsumerGroup>;

/**
 * Creates this daemon's members of a consumer group. The group itself is on the server: members claim messages there
 * when they wait for one and there may be some.
 */
// Longer than 100 lines: the members and their deliveries are one state, and every function is a few lines on it.
export function createConsumerGroup(options: ConsumerGroupOptions) {
  const { name, filter, after, leaseMs, commands, clock, onOver } = options;
  const pattern = luaPatternOf(filter);
  const members = new Set<Member>();
  /** Known when the server has answered `joinGroup`. */
  let groupId: string | undefined;
  let mayHaveMore = true;
  /** How often `check` was called: a claim that was sent before does not answer the latest one. */
  let checks = 0;
  let over: { failure?: Error } | undefined;
  let cancelDue = () => {};
  // At once, so that everything published from now on is delivered.
  commands.joinGroup(name, after, randomUUID(), leaseMs).then((id) => {
    groupId = id;
    return claim();
  }, fail);

  function finish(how: { failure?: Error }): void {
    if (over) return;
    over = how;
    cancelDue();
    onOver();
    for (const member of members) {
      for (const { cancel } of member.inFlight.values()) cancel();
      endWait(member);
    }
  }

  function fail(failure: Error): void {
    finish({ failure });
  }

  function endWait(member: Member): void {
    const { waiting } = member;
    member.waiting = undefined;
    if (over?.failure) waiting?.reject(over.failure);
    else waiting?.resolve(undefined);
  }

  /** Claims a message for each member that waits, has room, and has no claim under way. */
  async function claim(): Promise<void> {
    if (groupId === undefined || over || !mayHaveMore) return;
    const claiming = [...members].filter(
      (it) => it.waiting && !it.isClaiming && it.inFlight.size < it.maxInFlight,
    );
    if (claiming.length === 0) return;
    const checksBefore = checks;
    for (const member of claiming) member.isClaiming = true;
    try {
      const waits = claiming.map(({ ackWaitMs }) => ackWaitMs);
      const claimed = await commands.claim(name, groupId, pattern, waits);
      for (const member of claiming) member.isClaiming = false;
      if (!claimed) return finish({});
      if (!claimed.more && checks === checksBefore) mayHaveMore = false;
      handOut(claimed, claiming, groupId);
      void claim();
    } catch (error) {
      fail(error as Error);
    }
  }

  function handOut({ nextDueMs, found }: Claim, claiming: Member[], id: string): void {
    cancelDue();
    if (nextDueMs !== undefined) cancelDue = clock.after(nextDueMs, check);
    const unseen: ReturnedDelivery[] = [];
    for (const [index, { message, position, attempt }] of found.entries()) {
      const member = claiming[index];
      if (member?.waiting) deliver(member, message, position, attempt, id);
      // Its member has left meanwhile.
      else unseen.push({ position, attempt, isSeen: false });
    }
    // If this fails, the server delivers them again after `ackWaitMs`.
    commands.returnDeliveries(name, id, 0, unseen).catch(() => {});
  }

  function deliver(
    member: Member,
    message: BusDelivery["message"],
    position: string,
    attempt: number,
    id: string,
  ): void {
    const isInFlight = () => member.inFlight.get(position)?.attempt === attempt;
    const cancel = clock.after(member.ackWaitMs, () => isInFlight() && release(member, position));
    member.inFlight.get(position)?.cancel();
    member.inFlight.set(position, { attempt, cancel });
    member.waiting?.resolve({
      message,
      attempt,
      async ack() {
        await commands.ack(name, id, position, attempt);
        release(member, position);
      },
      async nack(delayMs = 0) {
        if (!isInFlight()) return;
        release(member, position);
        await commands.returnDeliveries(name, id, delayMs, [{ position, attempt, isSeen: true }]);
      },
    });
    member.waiting = undefined;
  }

  function release(member: Member, position: string): void {
    member.inFlight.get(position)?.cancel();
    if (member.inFlight.delete(position)) void claim();
  }

  /** Removes a member, and returns the deliveries that it has not acknowledged. */
  function leave(member: Member): void {
    if (!members.delete(member)) return;
    endWait(member);
    const pending = [...member.inFlight].map(([position, { attempt, cancel }]) => {
      cancel();
      return { position, attempt, isSeen: true };
    });
    member.inFlight.clear();
    // If this fails, the server delivers them again after `ackWaitMs`.
    if (groupId !== undefined) commands.returnDeliveries(name, groupId, 0, pending).catch(() => {});
  }

  /** Claims again: there may be new messages, or redeliveries that are due. */
  function check(): void {
    checks++;
    mayHaveMore = true;
    void claim();
  }

  return {
    filter,
    matches: createTopicMatcher(filter),
    isEmpty: () => members.size === 0,
    check,
    /** Frees the member that has a message which an earlier member has acknowledged. */
    onLateAck(position: string): void {
      for (const member of members) release(member, position);
    },
    /** Ends the iterations of all members if it is this group that was removed, and not an earlier one. */
    onRemoved(id: string): void {
      if (id === groupId) finish({});
    },
    fail,
    /** Ends the iterations of all members. */
    end: () => finish({}),
    join(limits: MemberOptions): Member {
      const member = { ...limits, inFlight: new Map() };
      members.add(member);
      return member;
    },
    /** Resolves with the next delivery; with `undefined` when the group was removed or the member has left. */
    next(member: Member): Promise<BusDelivery | undefined> {
      return new Promise((resolve, reject) => {
        member.waiting = { resolve, reject };
        if (over || !members.has(member)) endWait(member);
        else void claim();
      });
    },
    leave,
    leaveAll(): void {
      for (const member of members) leave(member);
    },
  };
}
