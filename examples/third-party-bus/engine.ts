import { topicMatches } from "./topics.js";

/** As it travels: the payload is base64. */
export interface Message {
  position?: string;
  topic: string;
  payload: string;
  at: string;
  from?: string;
  reply_to?: string;
}

/** What a reader gets: a message, and in a group a token by which it is settled. */
export interface Item {
  message: Message;
  attempt?: number;
  token?: string;
}

/** Gives one item each time it is asked; `undefined` when it has ended. */
export interface Reader {
  next(): Promise<Item | undefined>;
  end(): void;
}

export interface GroupName {
  filter: string;
  group: string;
}

interface Waker {
  wake(): void;
}

interface Member extends Waker {
  held: Set<number>;
  end(): void;
}

interface Unsettled {
  attempt: number;
  /** Absent: it waits for its next delivery. */
  member?: Member | undefined;
  timer?: NodeJS.Timeout | undefined;
}

interface Group {
  filter: string;
  generation: number;
  cursor: number;
  due: number[];
  unsettled: Map<number, Unsettled>;
  members: Set<Member>;
}

interface Subscriber extends Waker {
  filter: string;
  /** Messages that are not kept, each behind the kept ones up to a position. */
  passing: { message: Message; behind: number }[];
  passingBytes: number;
}

const MAX_KEPT = 10_000;
const MAX_KEPT_BYTES = 64 * 2 ** 20;
const MAX_PASSING = 1_000;
const MAX_PASSING_BYTES = 4 * 2 ** 20;
const MAX_GROUPS = 1_000;

const sizeOf = ({ topic, payload }: Message) => topic.length + payload.length;
const nameOf = ({ filter, group }: GroupName) => JSON.stringify([filter, group]);

/** The bus itself, in memory: kept messages in one order, readers, groups. Gone with its process. */
export function createEngine() {
  const kept = new Map<number, Message>();
  let keptBytes = 0;
  // Counted up from the time of the start, so that a later bus gives out greater positions.
  let newest = Date.now() * 1_000;
  const subscribers = new Set<Subscriber>();
  const groups = new Map<string, Group>();
  let generations = 0;

  function forget(position: number): void {
    const message = kept.get(position);
    if (message && kept.delete(position)) keptBytes -= sizeOf(message);
  }

  /** The first kept message for this filter after one position, up to another. */
  function find(filter: string, after: number, upTo: number): number | undefined {
    const [oldest = newest + 1] = kept.keys();
    for (let position = Math.max(after + 1, oldest); position <= upTo; position++) {
      const message = kept.get(position);
      if (message && topicMatches(filter, message.topic)) return position;
    }
    return undefined;
  }

  /** From a clock that was ahead of this one's: everything is news. */
  function startOf(after: string | undefined): number {
    if (after === undefined) return newest;
    return Number(after) > newest ? 0 : Number(after);
  }

  const wakeAll = () => {
    for (const subscriber of [...subscribers]) subscriber.wake();
    for (const { members } of groups.values()) for (const member of [...members]) member.wake();
  };

  /** Somebody who asks for one item after the other: `take` has one now, or has none. */
  function reader(take: () => Item | undefined, onEnd: () => void): Reader & Waker {
    let answer: ((item: Item | undefined) => void) | undefined;
    let isOver = false;
    const wake = () => {
      const item = answer && !isOver ? take() : undefined;
      if (!answer || (!item && !isOver)) return;
      const answering = answer;
      answer = undefined;
      answering(item);
    };
    return {
      wake,
      next: () =>
        new Promise((resolve) => {
          answer = resolve;
          wake();
        }),
      end() {
        if (isOver) return;
        isOver = true;
        onEnd();
        wake();
      },
    };
  }

  function settle(group: Group, position: number): void {
    const it = group.unsettled.get(position);
    if (!it) return;
    clearTimeout(it.timer);
    group.unsettled.delete(position);
    it.member?.held.delete(position);
    it.member?.wake();
  }

  function deliverAgain(group: Group, position: number, it: Unsettled, delayMs: number): void {
    clearTimeout(it.timer);
    const { member } = it;
    member?.held.delete(position);
    it.member = undefined;
    const now = () => {
      group.due = [...group.due, position].sort((a, b) => a - b);
      for (const one of [...group.members]) one.wake();
    };
    if (delayMs > 0) it.timer = setTimeout(now, delayMs);
    else now();
    member?.wake();
  }

  function nextFor(group: Group): number | undefined {
    for (let again = group.due.shift(); again !== undefined; again = group.due.shift()) {
      if (group.unsettled.has(again) && kept.has(again)) return again;
      group.unsettled.delete(again);
    }
    const position = find(group.filter, group.cursor, newest);
    group.cursor = position ?? newest;
    return position;
  }

  function take(group: Group, member: Member, ackWaitMs: number): Item | undefined {
    const position = nextFor(group);
    const message = position === undefined ? undefined : kept.get(position);
    if (position === undefined || !message) return undefined;
    const attempt = (group.unsettled.get(position)?.attempt ?? 0) + 1;
    const it: Unsettled = { attempt, member };
    it.timer = setTimeout(() => deliverAgain(group, position, it, 0), ackWaitMs);
    group.unsettled.set(position, it);
    member.held.add(position);
    return { message, attempt, token: [group.generation, position, attempt].join(":") };
  }

  function remove(name: string, group: Group | undefined): void {
    groups.delete(name);
    for (const position of [...(group?.unsettled.keys() ?? [])]) if (group) settle(group, position);
    for (const member of [...(group?.members ?? [])]) member.end();
  }

  function open(name: GroupName, after: string | undefined): Group {
    const known = groups.get(nameOf(name));
    if (known) return known;
    for (const [other, group] of groups) {
      if (groups.size < MAX_GROUPS) break;
      if (group.members.size === 0) remove(other, group);
    }
    const made = {
      filter: name.filter,
      generation: ++generations,
      cursor: startOf(after),
      due: [],
      unsettled: new Map<number, Unsettled>(),
      members: new Set<Member>(),
    };
    groups.set(nameOf(name), made);
    return made;
  }

  /** The delivery that a token is about; late ones too, of a group that is still the same. */
  function deliveryOf(name: GroupName, token: string) {
    const [generation, position = 0, attempt = 0] = token.split(":").map(Number);
    const group = groups.get(nameOf(name));
    return group && group.generation === generation ? { group, position, attempt } : undefined;
  }

  return {
    publish(message: Message, keep: boolean): string | undefined {
      if (keep) {
        newest += 1;
        const placed = { ...message, position: String(newest) };
        kept.set(newest, placed);
        keptBytes += sizeOf(placed);
        for (const position of kept.keys()) {
          if ((kept.size <= MAX_KEPT && keptBytes <= MAX_KEPT_BYTES) || kept.size === 1) break;
          forget(position);
        }
      }
      for (const it of keep ? [] : subscribers) {
        if (!topicMatches(it.filter, message.topic)) continue;
        it.passing.push({ message, behind: newest });
        it.passingBytes += sizeOf(message);
        while (it.passing.length > MAX_PASSING || it.passingBytes > MAX_PASSING_BYTES) shift(it);
      }
      wakeAll();
      return keep ? String(newest) : undefined;
    },
    subscribe({ filter, after }: { filter: string; after?: string | undefined }): Reader {
      let cursor = startOf(after);
      const next = (): Item | undefined => {
        const upTo = it.passing[0]?.behind ?? newest;
        const position = find(filter, cursor, upTo);
        cursor = position ?? Math.max(cursor, upTo);
        const message = position === undefined ? shift(it) : kept.get(position);
        return message && { message };
      };
      const made = reader(next, () => subscribers.delete(it));
      const it: Subscriber = { filter, passing: [], passingBytes: 0, wake: made.wake };
      subscribers.add(it);
      return made;
    },
    consume(
      options: GroupName & { after?: string | undefined; ackWaitMs: number; maxInFlight: number },
    ): Reader {
      const group = open(options, options.after);
      const next = () =>
        member.held.size < options.maxInFlight ? take(group, member, options.ackWaitMs) : undefined;
      const made = reader(next, () => {
        group.members.delete(member);
        for (const position of [...member.held]) {
          const it = group.unsettled.get(position);
          if (it) deliverAgain(group, position, it, 0);
        }
        // The one that was left last is the last to be forgotten.
        if (groups.get(nameOf(options)) !== group) return;
        groups.delete(nameOf(options));
        groups.set(nameOf(options), group);
      });
      const member: Member = { held: new Set(), wake: made.wake, end: made.end };
      group.members.add(member);
      return made;
    },
    ack(name: GroupName, token: string): void {
      const it = deliveryOf(name, token);
      if (it) settle(it.group, it.position);
    },
    nack(name: GroupName, token: string, delayMs: number): void {
      const it = deliveryOf(name, token);
      const unsettled = it?.group.unsettled.get(it.position);
      if (it && unsettled?.member && unsettled.attempt === it.attempt)
        deliverAgain(it.group, it.position, unsettled, delayMs);
    },
    removeGroup: (name: GroupName) => remove(nameOf(name), groups.get(nameOf(name))),
    drop(filter: string): void {
      for (const [position, { topic }] of kept) if (topicMatches(filter, topic)) forget(position);
      for (const [name, group] of groups) if (topicMatches(filter, group.filter)) remove(name, group);
    },
  };
}

function shift(it: Subscriber): Message | undefined {
  const message = it.passing.shift()?.message;
  if (message) it.passingBytes -= sizeOf(message);
  return message;
}
