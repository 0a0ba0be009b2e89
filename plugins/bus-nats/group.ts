import type { Msg } from "@nats-io/transport-node";
import type { BusDelivery, Clock, ConsumeOptions } from "../../core/index.js";
import { type Bell, createBell } from "./bell.js";
import { createPulls, type Pulls } from "./pulls.js";
import type { Session } from "./session.js";

const ACK = "+ACK";
const NAK = "-NAK";
/** More than are ever on their way to members that leave. */
const MAX_UNSEEN = 10_000;

/** One message in the hands of a member. */
interface Unsettled {
  /** Where the server is told what became of it. */
  reply: string;
  member: Member;
  cancel: () => void;
}

export interface Member {
  bell: Bell;
  ackWaitMs: number;
  maxInFlight: number;
  /** Sequences that it has not settled. */
  out: Set<number>;
  /** It could take one more, and waits for it. */
  isWaiting: boolean;
}

/** Where one consumer of the server stands, as `$JS.ACK.…` subjects tell it. */
interface Place {
  sequence: number;
  /** How often the server has sent it. */
  sent: number;
}

export interface GroupOptions {
  filter: string;
  group: string;
  /** The consumer on the server that remembers where it stands. */
  consumer: string;
  clock: Pick<Clock, "after">;
  /** The session of now; throws when there is none. */
  session: () => Session;
}

export type Group = ReturnType<typeof createGroup>;

/** A group's members here. What it has seen and what is unsettled is known to its consumer on the server. */
export function createGroup({ filter, group, consumer, clock, session }: GroupOptions) {
  const members = new Set<Member>();
  const unsettled = new Map<number, Unsettled>();
  /** Come from the server, for members that wait. */
  let arrived: Msg[] = [];
  /** How often a message came from the server and was handed to nobody: those are no attempts. */
  const unseen = new Map<number, number>();
  let pulls: Pulls | undefined;
  let isRemoved = false;

  const ringAll = () => {
    for (const { bell } of members) bell.ring();
  };
  const waiting = () => [...members].filter(({ isWaiting }) => isWaiting).length;

  function arrive(message: Msg): void {
    arrived.push(message);
    share();
  }

  /** Wakes as many as there is something for. */
  function share(): void {
    returnExcess();
    let left = arrived.length;
    for (const { isWaiting, bell } of members) {
      if (left === 0) return;
      if (!isWaiting) continue;
      left -= 1;
      bell.ring();
    }
  }

  /** What nobody waits for any more. */
  function returnExcess(): void {
    const many = waiting();
    while (arrived.length > many) {
      const { reply = "" } = arrived.pop() as Msg;
      const { sequence } = placeOf(reply);
      if (unseen.size >= MAX_UNSEEN) unseen.clear();
      unseen.set(sequence, (unseen.get(sequence) ?? 0) + 1);
      pulls?.session.tell(reply, NAK);
    }
  }

  function release(sequence: number): void {
    const it = unsettled.get(sequence);
    if (!it) return;
    unsettled.delete(sequence);
    it.cancel();
    it.member.out.delete(sequence);
    it.member.bell.ring();
  }

  function giveBack(sequence: number, it: Unsettled, delayMs: number): void {
    if (unsettled.get(sequence) !== it) return;
    release(sequence);
    // The server counts in nanoseconds.
    const how = delayMs > 0 ? `${NAK} {"delay": ${Math.round(delayMs * 1e6)}}` : NAK;
    pulls?.session.tell(it.reply, how);
  }

  function handOut(on: Session, member: Member, { reply = "", subject, headers, data }: Msg): BusDelivery {
    const { sequence, sent } = placeOf(reply);
    // The server gave up on whoever had it.
    release(sequence);
    const it: Unsettled = { reply, member, cancel: () => {} };
    it.cancel = clock.after(member.ackWaitMs, () => giveBack(sequence, it, 0));
    unsettled.set(sequence, it);
    member.out.add(sequence);
    let isAcked = false;
    return {
      message: on.keptOf(subject, headers, data, sequence),
      attempt: Math.max(1, sent - (unseen.get(sequence) ?? 0)),
      async ack() {
        if (isAcked || isRemoved) return;
        await session().settle(reply, ACK);
        isAcked = true;
        unseen.delete(sequence);
        release(sequence);
      },
      async nack(delayMs = 0) {
        giveBack(sequence, it, delayMs);
      },
    };
  }

  function leave(member: Member): void {
    members.delete(member);
    for (const sequence of [...member.out]) {
      const it = unsettled.get(sequence);
      if (it) giveBack(sequence, it, 0);
    }
    share();
  }

  /** So many messages are to come. */
  function wanted(): number {
    return waiting() - arrived.length;
  }

  function remove(): void {
    isRemoved = true;
    for (const sequence of [...unsettled.keys()]) release(sequence);
    ringAll();
  }

  return {
    filter,
    group,
    consumer,
    isRemoved: () => isRemoved,
    isIdle: () => members.size === 0,
    /** The longest time that a member has for a message. */
    longestMs: () => Math.max(0, ...[...members].map(({ ackWaitMs }) => ackWaitMs)),
    join(on: Session, { ackWaitMs, maxInFlight }: ConsumeOptions): Member {
      const member: Member = { bell: createBell(), ackWaitMs, maxInFlight, out: new Set(), isWaiting: false };
      members.add(member);
      if (pulls?.session !== on) {
        // What came over a connection that is lost comes again over this one.
        arrived = [];
        pulls = createPulls({ session: on, consumer, clock, wanted, arrive, onGone: remove });
      }
      return member;
    },
    take(member: Member): BusDelivery | undefined {
      member.isWaiting = false;
      if (member.out.size >= member.maxInFlight) return undefined;
      const message = arrived.shift();
      if (message && pulls) return handOut(pulls.session, member, message);
      member.isWaiting = true;
      pulls?.pull();
      return undefined;
    },
    leave,
    /** Everybody leaves, while the server can still be told. */
    leaveAll(): void {
      for (const member of [...members]) leave(member);
    },
    ringAll,
    remove,
  };
}

/** `$JS.ACK.[domain.account.]STREAM.CONSUMER.sent.sequence.…`, and five more or six. */
function placeOf(reply: string): Place {
  const tokens = reply.split(".");
  const first = tokens.length === 9 ? 4 : 6;
  return { sent: Number(tokens[first]), sequence: Number(tokens[first + 1]) };
}
