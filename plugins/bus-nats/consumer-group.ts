import type { Msg } from "@nats-io/transport-node";
import type { BusDelivery, Clock, ConsumeOptions } from "../../core/index.js";
import { createSignal, type Signal } from "../kit/bus/signal.js";
import { createPullRequests, type PullRequests } from "./pull-requests.js";
import type { Session } from "./session.js";

const ACK = "+ACK";
const NAK = "-NAK";
/** More than the messages that are ever on their way to members that leave. */
const MAX_UNSEEN = 10_000;

/** A message that a member has and has not acknowledged. */
interface Pending {
  /** The subject on which the server takes its acknowledgement. */
  reply: string;
  member: Member;
  /** Cancels the timer that returns it to the server. */
  cancel: () => void;
}

export interface Member {
  changed: Signal;
  ackWaitMs: number;
  maxInFlight: number;
  /** The sequences that this member has not acknowledged. */
  inFlight: Set<number>;
  /** Whether the member has room for a message and waits for one. */
  isWaiting: boolean;
}

export interface ConsumerGroupOptions {
  filter: string;
  group: string;
  /** The durable consumer on the server, which knows the progress of the group. */
  consumer: string;
  clock: Pick<Clock, "after">;
  /** Returns the current session; throws when there is none. */
  session: () => Session;
}

export type ConsumerGroup = ReturnType<typeof createConsumerGroup>;

/** Creates this daemon's members of a consumer group. The group's progress is kept by its consumer on the server. */
// Longer than 100 lines: the members and their messages are one state, and every function here is a few lines on it.
export function createConsumerGroup({ filter, group, consumer, clock, session }: ConsumerGroupOptions) {
  const members = new Set<Member>();
  const pending = new Map<number, Pending>();
  /** Messages that have come from the server for waiting members. */
  let arrived: Msg[] = [];
  /** How often the server has sent a message that no member got: those are not attempts. */
  const unseen = new Map<number, number>();
  let pulls: PullRequests | undefined;
  let isRemoved = false;

  const notifyAll = () => {
    for (const { changed } of members) changed.notify();
  };
  const waitingCount = () => [...members].filter(({ isWaiting }) => isWaiting).length;

  function onMessage(message: Msg): void {
    arrived.push(message);
    distribute();
  }

  /** Wakes as many waiting members as there are messages. */
  function distribute(): void {
    returnExcess();
    let left = arrived.length;
    for (const { isWaiting, changed } of members) {
      if (left === 0) return;
      if (!isWaiting) continue;
      left -= 1;
      changed.notify();
    }
  }

  /** Returns messages to the server that no member waits for any more. */
  function returnExcess(): void {
    const waiting = waitingCount();
    while (arrived.length > waiting) {
      const { reply = "" } = arrived.pop() as Msg;
      const { sequence } = parseReply(reply);
      if (unseen.size >= MAX_UNSEEN) unseen.clear();
      unseen.set(sequence, (unseen.get(sequence) ?? 0) + 1);
      pulls?.session.send(reply, NAK);
    }
  }

  function release(sequence: number): void {
    const it = pending.get(sequence);
    if (!it) return;
    pending.delete(sequence);
    it.cancel();
    it.member.inFlight.delete(sequence);
    it.member.changed.notify();
  }

  /** Asks the server to deliver a message again, unless another delivery has replaced this one. */
  function returnMessage(sequence: number, it: Pending, delayMs: number): void {
    if (pending.get(sequence) !== it) return;
    release(sequence);
    // The server takes nanoseconds.
    const nak = delayMs > 0 ? `${NAK} {"delay": ${Math.round(delayMs * 1e6)}}` : NAK;
    pulls?.session.send(it.reply, nak);
  }

  function handOut(on: Session, member: Member, { reply = "", subject, headers, data }: Msg): BusDelivery {
    const { sequence, deliveries } = parseReply(reply);
    // The server delivers it again, so an earlier delivery here has timed out.
    release(sequence);
    const it: Pending = { reply, member, cancel: () => {} };
    it.cancel = clock.after(member.ackWaitMs, () => returnMessage(sequence, it, 0));
    pending.set(sequence, it);
    member.inFlight.add(sequence);
    let isAcked = false;
    return {
      message: on.keptMessage(subject, headers, data, sequence),
      attempt: Math.max(1, deliveries - (unseen.get(sequence) ?? 0)),
      async ack() {
        if (isAcked || isRemoved) return;
        await session().acknowledge(reply, ACK);
        isAcked = true;
        unseen.delete(sequence);
        release(sequence);
      },
      async nack(delayMs = 0) {
        returnMessage(sequence, it, delayMs);
      },
    };
  }

  function leave(member: Member): void {
    members.delete(member);
    for (const sequence of [...member.inFlight]) {
      const it = pending.get(sequence);
      if (it) returnMessage(sequence, it, 0);
    }
    distribute();
  }

  function remove(): void {
    isRemoved = true;
    for (const sequence of [...pending.keys()]) release(sequence);
    notifyAll();
  }

  return {
    filter,
    group,
    consumer,
    isRemoved: () => isRemoved,
    isIdle: () => members.size === 0,
    /** Returns the longest time that a member has to acknowledge a message. */
    maxAckWaitMs: () => Math.max(0, ...[...members].map(({ ackWaitMs }) => ackWaitMs)),
    join(on: Session, { ackWaitMs, maxInFlight }: ConsumeOptions): Member {
      const member: Member = {
        changed: createSignal(),
        ackWaitMs,
        maxInFlight,
        inFlight: new Set(),
        isWaiting: false,
      };
      members.add(member);
      if (pulls?.session !== on) {
        // The server delivers again what has arrived over a lost connection.
        arrived = [];
        const wanted = () => waitingCount() - arrived.length;
        pulls = createPullRequests({ session: on, consumer, clock, wanted, onMessage, onGone: remove });
      }
      return member;
    },
    /** Returns the next delivery for a member. Without one, requests it, and notifies the member when it comes. */
    take(member: Member): BusDelivery | undefined {
      member.isWaiting = false;
      if (member.inFlight.size >= member.maxInFlight) return undefined;
      const message = arrived.shift();
      if (message && pulls) return handOut(pulls.session, member, message);
      member.isWaiting = true;
      pulls?.pull();
      return undefined;
    },
    leave,
    /** Removes all members, while their messages can still be returned to the server. */
    leaveAll(): void {
      for (const member of [...members]) leave(member);
    },
    notifyAll,
    remove,
  };
}

/**
 * Parses the reply subject of a delivery: `$JS.ACK.[domain.account.]STREAM.CONSUMER.deliveries.sequence.…`, with five
 * or six more tokens.
 */
function parseReply(reply: string): { sequence: number; deliveries: number } {
  const tokens = reply.split(".");
  const first = tokens.length === 9 ? 4 : 6;
  return { deliveries: Number(tokens[first]), sequence: Number(tokens[first + 1]) };
}
