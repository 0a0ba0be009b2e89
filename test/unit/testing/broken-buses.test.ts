import {
  type BusDelivery,
  type BusMessage,
  type MessageBus,
  type SubscribeOptions,
  systemClock,
} from "../../../core/index.js";
import { createMemoryBus } from "../../../plugins/bus-memory/memory-bus.js";
import { type MessageBusSubject, testMessageBus } from "../../contract/index.js";
import { type DriverFault, tryFaults } from "../../helpers/suite-run.js";

/** A fault of a bus: the methods that it replaces in a correct one. */
interface Fault extends DriverFault {
  breakIt: (good: MessageBus) => Partial<MessageBus>;
  durable?: boolean;
  /** Whether the bus has no `stop`. */
  keepsWorking?: boolean;
}

type Subscribe = MessageBus["subscribe"];
type Consume = MessageBus["consume"];

/** Returns a `subscribe` that maps each message, or leaves it out. */
const mapMessages =
  (
    good: MessageBus,
    map: (message: BusMessage, options: SubscribeOptions) => BusMessage | undefined,
  ): Subscribe =>
  (options) => {
    const source = good.subscribe(options);
    return (async function* () {
      for await (const message of source) {
        const mapped = map(message, options);
        if (mapped) yield mapped;
      }
    })();
  };
/** Returns a `consume` that maps each delivery, or leaves it out. */
const mapDeliveries =
  (good: MessageBus, map: (it: BusDelivery, index: number) => Promise<BusDelivery | undefined>): Consume =>
  (options) => {
    const source = good.consume(options);
    return (async function* () {
      let index = 0;
      for await (const delivery of source) {
        const mapped = await map(delivery, index++);
        if (mapped) yield mapped;
      }
    })();
  };
/** Returns a `subscribe` that reads ahead without limit, and yields the message that `pick` takes. */
const readingAhead =
  (good: MessageBus, pick: (ready: BusMessage[]) => BusMessage | undefined): Subscribe =>
  (options) => {
    const source = good.subscribe(options);
    return (async function* () {
      const ready: BusMessage[] = [];
      let notify = () => {};
      let isOver = false;
      const read = async () => {
        for await (const message of source) {
          ready.push(message);
          notify();
        }
      };
      const reading = read().finally(() => {
        isOver = true;
        notify();
      });
      reading.catch(() => {});
      while (!isOver || ready.length > 0) {
        const changed = new Promise<void>((resolve) => {
          notify = resolve;
        });
        const message = pick(ready);
        if (message) yield message;
        else await changed;
      }
      await reading;
    })();
  };
/** Replaces every filter. */
const filtering = (good: MessageBus, change: (filter: string) => string): Partial<MessageBus> => ({
  subscribe: (options) => good.subscribe({ ...options, filter: change(options.filter) }),
  consume: (options) => good.consume({ ...options, filter: change(options.filter) }),
});
/** Replaces every position. */
const starting = (good: MessageBus, change: (after: string) => { after?: string }): Partial<MessageBus> => ({
  subscribe: ({ after, ...options }) =>
    good.subscribe({ ...options, ...(after === undefined ? {} : change(after)) }),
  consume: ({ after, ...options }) =>
    good.consume({ ...options, ...(after === undefined ? {} : change(after)) }),
});
const forever = () => new AbortController().signal;
const isPosition = (after: string | undefined) => after === undefined || /^\d+$/.test(after);

const FAULTS: readonly Fault[] = [
  { name: "has no fault", breakIt: () => ({}), noticed: [] },
  {
    name: "corrupts payloads that are not text",
    breakIt: (good) => ({
      publish: ({ payload, ...message }, options) =>
        good.publish({ ...message, payload: Buffer.from(Buffer.from(payload).toString()) }, options),
    }),
    noticed: ["a message arrives unchanged, with its sender and reply topic"],
  },
  {
    name: "keeps the publisher's buffer instead of a copy",
    breakIt(good) {
      const given = new Map<string, Uint8Array>();
      return {
        publish(message, options) {
          given.set(message.topic, message.payload);
          return good.publish(message, options);
        },
        subscribe: mapMessages(good, (it) => ({ ...it, payload: given.get(it.topic) ?? it.payload })),
      };
    },
    noticed: ["a message arrives unchanged, with its sender and reply topic"],
  },
  {
    name: "loses the sender and the reply topic",
    breakIt: (good) => ({
      publish: ({ topic, payload }, options) => good.publish({ topic, payload }, options),
    }),
    noticed: ["a message arrives unchanged, with its sender and reply topic"],
  },
  {
    name: "truncates large messages",
    breakIt: (good) => ({
      publish: (message, options) =>
        good.publish({ ...message, payload: message.payload.subarray(0, 65_536) }, options),
    }),
    noticed: ["a message of 1 MiB arrives complete"],
  },
  {
    name: "gives each reader another order",
    breakIt: (good) => ({ subscribe: readingAhead(good, (ready) => ready.pop()) }),
    noticed: ["messages published one after the other arrive in that order"],
  },
  {
    name: "reorders messages",
    breakIt(good) {
      let count = 0;
      return {
        async publish(message, options) {
          count += 1;
          if (count % 10 !== 5) return good.publish(message, options);
          setTimeout(() => void good.publish(message, options).catch(() => {}), 20);
          return { position: String(Date.now() * 1_000) };
        },
      };
    },
    noticed: ["messages published one after the other arrive in that order"],
  },
  {
    name: "matches any number of levels with +",
    breakIt: (good) => filtering(good, (filter) => filter.replace(/\+\/.*|\+$/, "#")),
    noticed: [
      'the filter "+" matches the right topics only',
      'the filter "a/+/c" matches the right topics only',
    ],
  },
  {
    name: "does not match zero levels with #",
    breakIt: (good) => ({
      subscribe: mapMessages(good, (message, { filter }) =>
        filter === `${message.topic}/#` ? undefined : message,
      ),
    }),
    noticed: ['the filter "a/#" matches the right topics only'],
  },
  {
    name: "matches a filter as a prefix of the topic",
    breakIt: (good) => ({
      subscribe(options) {
        const beginning = options.filter.replace(/\/?#$/, "");
        if (/[+#]/.test(beginning)) return good.subscribe(options);
        const isMeant = (message: BusMessage) => (message.topic.startsWith(beginning) ? message : undefined);
        return mapMessages(good, isMeant)({ ...options, filter: "#" });
      },
    }),
    noticed: ['the filter "a/b" matches the right topics only'],
  },
  {
    name: "ignores the case of letters",
    breakIt: (good) => ({
      publish: (message, options) =>
        good.publish({ ...message, topic: message.topic.toLowerCase() }, options),
    }),
    noticed: ['the filter "a/b" matches the right topics only'],
  },
  {
    name: "starts a subscription with the kept messages",
    breakIt: (good) => ({ subscribe: (options) => good.subscribe({ after: "0", ...options }) }),
    noticed: ["a subscription without a position gets new messages only"],
  },
  {
    name: "starts a new group with the kept messages",
    breakIt: (good) => ({ consume: (options) => good.consume({ after: "0", ...options }) }),
    noticed: ["a group continues where it was after a time without members"],
  },
  {
    name: "ignores the position of a reader",
    breakIt: (good) => starting(good, (after) => (after === "0" ? { after } : {})),
    noticed: [
      "a subscription after a position gets the kept messages and then new ones, each once",
      "a reader that resumes after its last position misses and repeats nothing",
    ],
  },
  {
    name: "starts at the beginning for a reader that resumes",
    breakIt: (good) => starting(good, (after) => ({ after: isPosition(after) ? "0" : after })),
    noticed: [
      "a subscription after a position gets the kept messages and then new ones, each once",
      "a reader that resumes after its last position misses and repeats nothing",
    ],
  },
  {
    name: "repeats the message at the position",
    breakIt: (good) =>
      starting(good, (after) => ({
        after: isPosition(after) ? String(Math.max(0, Number(after) - 1)) : after,
      })),
    noticed: [
      "a subscription after a position gets the kept messages and then new ones, each once",
      "a reader that resumes after its last position misses and repeats nothing",
    ],
  },
  {
    name: "numbers positions separately for each topic",
    breakIt: (good) => {
      const topics = new Map<string, string>();
      return {
        async publish(message, options) {
          const answer = await good.publish(message, options);
          if (answer.position !== undefined) topics.set(answer.position, message.topic);
          return answer;
        },
        subscribe({ after, ...options }) {
          const isOther = after !== undefined && topics.has(after) && topics.get(after) !== options.filter;
          return good.subscribe({
            ...options,
            ...(after === undefined ? {} : { after: isOther ? "0" : after }),
          });
        },
      };
    },
    noticed: ["a position of a message on another topic is valid"],
  },
  {
    name: "loses messages of a slow reader",
    breakIt(good) {
      return {
        subscribe(options) {
          let count = 0;
          return mapMessages(good, (message) => (++count <= 500 ? message : undefined))(options);
        },
      };
    },
    noticed: ["a slow reader gets all kept messages later"],
  },
  {
    name: "accepts any text as a position",
    breakIt: (good) => starting(good, (after) => ({ after: isPosition(after) ? after : "0" })),
    noticed: ["an invalid position is refused at once"],
  },
  {
    name: "subscribes with a delay",
    breakIt: (good) => ({
      async *subscribe(options) {
        await new Promise(setImmediate);
        yield* good.subscribe(options);
      },
    }),
    noticed: ["a subscription without a position gets new messages only"],
    isBroad: true,
  },
  {
    name: "joins a group with a delay",
    breakIt: (good) => ({
      async *consume(options) {
        await new Promise(setImmediate);
        yield* good.consume(options);
      },
    }),
    noticed: ["a group continues where it was after a time without members"],
    isBroad: true,
  },
  {
    name: "keeps messages with keep: false",
    breakIt: (good) => ({
      async publish(message, options) {
        const answer = await good.publish(message, {});
        return options?.keep === false ? {} : answer;
      },
    }),
    noticed: ["a message with keep: false goes to current subscribers only, in its place in the order"],
  },
  {
    name: "loses messages with keep: false",
    breakIt: (good) => ({
      publish: async (message, options) => (options?.keep === false ? {} : good.publish(message, options)),
    }),
    noticed: ["a message with keep: false goes to current subscribers only, in its place in the order"],
  },
  {
    name: "delivers messages with keep: false before kept ones",
    breakIt: (good) => ({
      subscribe: readingAhead(good, (ready) => {
        const first = ready.findIndex(({ position }) => position === undefined);
        return ready.splice(Math.max(0, first), 1)[0];
      }),
    }),
    noticed: ["a message with keep: false goes to current subscribers only, in its place in the order"],
  },
  {
    name: "buffers without limit for a reader that does not read",
    breakIt: (good) => ({
      async publish(message, options) {
        const answer = await good.publish(message, options);
        // Lets readers that read ahead run.
        await new Promise(setImmediate);
        return answer;
      },
      subscribe: readingAhead(good, (ready) => ready.shift()),
    }),
    noticed: ["unread messages with keep: false do not accumulate without limit"],
  },
  {
    name: "loses a message of a group",
    breakIt: (good) => ({
      consume: mapDeliveries(good, async (delivery, index) => {
        if (index !== 15) return delivery;
        await delivery.ack();
        return undefined;
      }),
    }),
    noticed: ["members of a group share the messages, and every group gets all of them"],
  },
  {
    name: "delivers to every member of a group",
    breakIt(good) {
      let members = 0;
      return {
        consume: (options) => good.consume({ ...options, group: `${options.group}-${++members}` }),
      };
    },
    noticed: ["members of a group share the messages, and every group gets all of them"],
  },
  {
    name: "treats all groups as one",
    breakIt: (good) => ({ consume: (options) => good.consume({ ...options, group: "all" }) }),
    noticed: ["members of a group share the messages, and every group gets all of them"],
  },
  {
    name: "distinguishes groups by their name alone",
    breakIt(good) {
      const filters = new Map<string, string>();
      return {
        consume(options) {
          const filter = filters.get(options.group) ?? options.filter;
          filters.set(options.group, filter);
          return good.consume({ ...options, filter });
        },
      };
    },
    noticed: ["members of a group share the messages, and every group gets all of them"],
  },
  {
    name: "removes a group with its last member",
    breakIt: (good) => ({
      async *consume(options) {
        try {
          yield* good.consume(options);
        } finally {
          await good.removeGroup(options);
        }
      },
    }),
    noticed: ["a group continues where it was after a time without members"],
  },
  {
    name: "restarts a group at the position that a later member gives",
    breakIt: (good) => ({
      async *consume(options) {
        if (options.after !== undefined) await good.removeGroup(options);
        yield* good.consume(options);
      },
    }),
    noticed: ["a group continues where it was after a time without members"],
  },
  {
    name: "delivers acknowledged messages again",
    breakIt: (good) => ({ consume: mapDeliveries(good, async (it) => ({ ...it, ack: () => it.nack(5) })) }),
    noticed: ["a message that is not acknowledged in time is delivered again, and a late ack completes it"],
  },
  {
    name: "ignores a late ack",
    breakIt(good) {
      const latest = new Map<unknown, number>();
      return {
        consume: mapDeliveries(good, async (it) => {
          latest.set(it.message.position, it.attempt);
          const isLate = () => latest.get(it.message.position) !== it.attempt;
          return { ...it, ack: async () => (isLate() ? undefined : it.ack()) };
        }),
      };
    },
    noticed: ["a message that is not acknowledged in time is delivered again, and a late ack completes it"],
  },
  {
    name: "accepts a late nack",
    breakIt(good) {
      const latest = new Map<unknown, BusDelivery>();
      return {
        consume: mapDeliveries(good, async (it) => {
          latest.set(it.message.position, it);
          return { ...it, nack: async (delayMs) => latest.get(it.message.position)?.nack(delayMs) };
        }),
      };
    },
    noticed: ["a message is delivered again after nack, at once or after the delay"],
  },
  {
    name: "does not deliver again after nack",
    breakIt: (good) => ({ consume: mapDeliveries(good, async (it) => ({ ...it, nack: () => it.ack() })) }),
    noticed: ["a message is delivered again after nack, at once or after the delay"],
  },
  {
    name: "ignores the delay of nack",
    breakIt: (good) => ({ consume: mapDeliveries(good, async (it) => ({ ...it, nack: () => it.nack() })) }),
    noticed: ["a message is delivered again after nack, at once or after the delay"],
  },
  {
    name: "does not count attempts",
    breakIt: (good) => ({ consume: mapDeliveries(good, async (it) => ({ ...it, attempt: 1 })) }),
    noticed: [
      "a message is delivered again after nack, at once or after the delay",
      "a message that is not acknowledged in time is delivered again, and a late ack completes it",
      "unacknowledged messages of a member that leaves go to another member",
    ],
  },
  {
    name: "ignores ackWaitMs",
    breakIt: (good) => ({ consume: (options) => good.consume({ ...options, ackWaitMs: 2 ** 31 }) }),
    noticed: ["a message that is not acknowledged in time is delivered again, and a late ack completes it"],
  },
  {
    name: "acknowledges the messages of a member that leaves",
    breakIt: (good) => ({
      async *consume(options) {
        const open: BusDelivery[] = [];
        try {
          for await (const delivery of good.consume(options)) {
            open.push(delivery);
            yield delivery;
          }
        } finally {
          for (const delivery of open) await delivery.ack();
        }
      },
    }),
    noticed: ["unacknowledged messages of a member that leaves go to another member"],
  },
  {
    name: "ignores maxInFlight",
    breakIt: (good) => ({ consume: (options) => good.consume({ ...options, maxInFlight: 1_000 }) }),
    noticed: ["a member gets at most maxInFlight unacknowledged messages"],
  },
  {
    name: "delivers one message at a time",
    breakIt: (good) => ({ consume: (options) => good.consume({ ...options, maxInFlight: 1 }) }),
    noticed: ["a member gets at most maxInFlight unacknowledged messages"],
    isBroad: true,
  },
  {
    name: "does not remove groups",
    breakIt: () => ({ removeGroup: async () => {} }),
    noticed: ["removing a group ends its members, and its name is a new group afterwards"],
  },
  {
    name: "drops nothing",
    breakIt: () => ({ drop: async () => {} }),
    noticed: ["a drop removes the matching messages and groups, and nothing else"],
  },
  {
    name: "drops everything",
    breakIt: (good) => ({ drop: () => good.drop("#") }),
    noticed: ["a drop removes the matching messages and groups, and nothing else"],
  },
  {
    name: "drops messages but not groups",
    breakIt(good) {
      let dropped: string | undefined;
      return {
        async drop(filter) {
          dropped = filter.replace(/\/#$/, "");
        },
        subscribe: mapMessages(good, (message) => {
          const isDropped = dropped !== undefined && `${message.topic}/`.startsWith(`${dropped}/`);
          return isDropped && Buffer.from(message.payload).toString() !== "anew" ? undefined : message;
        }),
      };
    },
    noticed: ["a drop removes the matching messages and groups, and nothing else"],
  },
  {
    name: "does not end readers",
    breakIt: (good) => ({ subscribe: (options) => good.subscribe({ ...options, signal: forever() }) }),
    noticed: ["an iteration ends by its signal, and by leaving the loop"],
  },
  {
    name: "does not end members",
    breakIt: (good) => ({ consume: (options) => good.consume({ ...options, signal: forever() }) }),
    noticed: ["an iteration ends by its signal, and by leaving the loop"],
  },
  {
    name: "is unhealthy while it is started",
    breakIt: () => ({ health: () => "always unhealthy" }),
    noticed: ["a started bus is healthy, and stopping it twice is safe"],
  },
  {
    name: "keeps working after it is stopped",
    breakIt: () => ({}),
    keepsWorking: true,
    noticed: ["a started bus is healthy, and stopping it twice is safe"],
  },
  {
    name: "ends readers without an error when it is stopped",
    breakIt: (good) => ({
      async *subscribe(options) {
        try {
          yield* good.subscribe(options);
        } catch {
          // Ends as if there were no more messages.
        }
      },
    }),
    noticed: ["a started bus is healthy, and stopping it twice is safe"],
  },
  {
    name: "claims to be durable and is not",
    breakIt: () => ({}),
    durable: true,
    noticed: ["messages, positions and groups survive a restart"],
  },
];

const LIMITS = { maxMessages: 10_000, maxBytes: 64 * 2 ** 20, maxGroups: 1_000 };

function subjectOf({ breakIt, keepsWorking = false }: Fault): MessageBusSubject {
  const open = () => {
    const { bus, stop } = createMemoryBus(systemClock, LIMITS);
    return { bus: { ...bus, ...breakIt(bus) }, ...(keepsWorking ? {} : { stop }) };
  };
  return { ...open(), reopen: open };
}

tryFaults("message bus", FAULTS, (fault, test) =>
  testMessageBus({
    test,
    capabilities: { durable: fault.durable ?? false },
    factory: () => subjectOf(fault),
  }),
);
