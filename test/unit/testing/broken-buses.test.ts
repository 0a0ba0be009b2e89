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

/** A mistake that a driver may have: what it does otherwise than the good one that it is put around. */
interface Fault extends DriverFault {
  breakIt: (good: MessageBus) => Partial<MessageBus>;
  durable?: boolean;
  /** It goes on after it is stopped. */
  goesOn?: boolean;
}

type Subscribe = MessageBus["subscribe"];
type Consume = MessageBus["consume"];

/** Messages to subscribers, each made into what is told instead. */
const retell =
  (
    good: MessageBus,
    tell: (message: BusMessage, options: SubscribeOptions) => BusMessage | undefined,
  ): Subscribe =>
  (options) => {
    const source = good.subscribe(options);
    return (async function* () {
      for await (const message of source) {
        const told = tell(message, options);
        if (told) yield told;
      }
    })();
  };
/** Deliveries to members, each made into what is delivered instead. */
const redeliver =
  (
    good: MessageBus,
    deliver: (it: BusDelivery, index: number) => Promise<BusDelivery | undefined>,
  ): Consume =>
  (options) => {
    const source = good.consume(options);
    return (async function* () {
      let index = 0;
      for await (const delivery of source) {
        const told = await deliver(delivery, index++);
        if (told) yield told;
      }
    })();
  };
/** Reads ahead, as far as it goes, and hands out of that what `pick` takes. */
const readingAhead =
  (good: MessageBus, pick: (ready: BusMessage[]) => BusMessage | undefined): Subscribe =>
  (options) => {
    const source = good.subscribe(options);
    return (async function* () {
      const ready: BusMessage[] = [];
      let ring = () => {};
      let isOver = false;
      const read = async () => {
        for await (const message of source) {
          ready.push(message);
          ring();
        }
      };
      const reading = read().finally(() => {
        isOver = true;
        ring();
      });
      reading.catch(() => {});
      while (!isOver || ready.length > 0) {
        const rung = new Promise<void>((resolve) => {
          ring = resolve;
        });
        const message = pick(ready);
        if (message) yield message;
        else await rung;
      }
      await reading;
    })();
  };
/** Everything by another filter. */
const filtering = (good: MessageBus, change: (filter: string) => string): Partial<MessageBus> => ({
  subscribe: (options) => good.subscribe({ ...options, filter: change(options.filter) }),
  consume: (options) => good.consume({ ...options, filter: change(options.filter) }),
});
/** Every position, where one is given. */
const starting = (good: MessageBus, change: (after: string) => { after?: string }): Partial<MessageBus> => ({
  subscribe: ({ after, ...options }) =>
    good.subscribe({ ...options, ...(after === undefined ? {} : change(after)) }),
  consume: ({ after, ...options }) =>
    good.consume({ ...options, ...(after === undefined ? {} : change(after)) }),
});
const forever = () => new AbortController().signal;
const isPosition = (after: string | undefined) => after === undefined || /^\d+$/.test(after);

const FAULTS: readonly Fault[] = [
  { name: "does nothing wrong", breakIt: () => ({}), noticed: [] },
  {
    name: "loses what is not text",
    breakIt: (good) => ({
      publish: ({ payload, ...message }, options) =>
        good.publish({ ...message, payload: Buffer.from(Buffer.from(payload).toString()) }, options),
    }),
    noticed: ["a message arrives as it was published"],
  },
  {
    name: "keeps the publisher's bytes instead of a copy",
    breakIt(good) {
      const given = new Map<string, Uint8Array>();
      return {
        publish(message, options) {
          given.set(message.topic, message.payload);
          return good.publish(message, options);
        },
        subscribe: retell(good, (it) => ({ ...it, payload: given.get(it.topic) ?? it.payload })),
      };
    },
    noticed: ["a message arrives as it was published"],
  },
  {
    name: "forgets who has published, and where an answer is waited for",
    breakIt: (good) => ({
      publish: ({ topic, payload }, options) => good.publish({ topic, payload }, options),
    }),
    noticed: ["a message arrives as it was published"],
  },
  {
    name: "cuts a large message",
    breakIt: (good) => ({
      publish: (message, options) =>
        good.publish({ ...message, payload: message.payload.subarray(0, 65_536) }, options),
    }),
    noticed: ["a large message arrives whole"],
  },
  {
    name: "gives each reader an order of its own",
    breakIt: (good) => ({ subscribe: readingAhead(good, (ready) => ready.pop()) }),
    noticed: ["one after the other is the order of publishing"],
  },
  {
    name: "lets one message overtake another",
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
    noticed: ["one after the other is the order of publishing"],
  },
  {
    name: "takes + for any number of levels",
    breakIt: (good) => filtering(good, (filter) => filter.replace(/\+\/.*|\+$/, "#")),
    noticed: ['"+" takes what fits, and leaves the rest', '"a/+/c" takes what fits, and leaves the rest'],
  },
  {
    name: "takes no level for #",
    breakIt: (good) => ({
      subscribe: retell(good, (message, { filter }) =>
        filter === `${message.topic}/#` ? undefined : message,
      ),
    }),
    noticed: ['"a/#" takes what fits, and leaves the rest'],
  },
  {
    name: "takes a filter for the beginning of a topic",
    breakIt: (good) => ({
      subscribe(options) {
        const beginning = options.filter.replace(/\/?#$/, "");
        if (/[+#]/.test(beginning)) return good.subscribe(options);
        const isMeant = (message: BusMessage) => (message.topic.startsWith(beginning) ? message : undefined);
        return retell(good, isMeant)({ ...options, filter: "#" });
      },
    }),
    noticed: ['"a/b" takes what fits, and leaves the rest'],
  },
  {
    name: "does not tell letters by their case",
    breakIt: (good) => ({
      publish: (message, options) =>
        good.publish({ ...message, topic: message.topic.toLowerCase() }, options),
    }),
    noticed: ['"a/b" takes what fits, and leaves the rest'],
  },
  {
    name: "begins a subscription with what is kept",
    breakIt: (good) => ({ subscribe: (options) => good.subscribe({ after: "0", ...options }) }),
    noticed: ["without a position only what comes is read"],
  },
  {
    name: "begins a new group with what is kept",
    breakIt: (good) => ({ consume: (options) => good.consume({ after: "0", ...options }) }),
    noticed: ["a group goes on where it was, without members too"],
  },
  {
    name: "does not look where a reader was",
    breakIt: (good) => starting(good, (after) => (after === "0" ? { after } : {})),
    noticed: [
      "after a position come the kept ones, then what comes, each once",
      "a reader that broke off goes on where it was",
    ],
  },
  {
    name: "begins anew for one who comes back",
    breakIt: (good) => starting(good, (after) => ({ after: isPosition(after) ? "0" : after })),
    noticed: [
      "after a position come the kept ones, then what comes, each once",
      "a reader that broke off goes on where it was",
    ],
  },
  {
    name: "tells the message at the position once more",
    breakIt: (good) =>
      starting(good, (after) => ({
        after: isPosition(after) ? String(Math.max(0, Number(after) - 1)) : after,
      })),
    noticed: [
      "after a position come the kept ones, then what comes, each once",
      "a reader that broke off goes on where it was",
    ],
  },
  {
    name: "counts positions by topic",
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
    noticed: ["a position of another topic is as good as one's own"],
  },
  {
    name: "loses what one who is slow has not read",
    breakIt(good) {
      return {
        subscribe(options) {
          let count = 0;
          return retell(good, (message) => (++count <= 500 ? message : undefined))(options);
        },
      };
    },
    noticed: ["a reader that is slow gets kept messages later"],
  },
  {
    name: "takes any text for a position",
    breakIt: (good) => starting(good, (after) => ({ after: isPosition(after) ? after : "0" })),
    noticed: ["what cannot be a position is refused at once"],
  },
  {
    name: "subscribes a moment late",
    breakIt: (good) => ({
      async *subscribe(options) {
        await new Promise(setImmediate);
        yield* good.subscribe(options);
      },
    }),
    noticed: ["without a position only what comes is read"],
    isBroad: true,
  },
  {
    name: "joins a group a moment late",
    breakIt: (good) => ({
      async *consume(options) {
        await new Promise(setImmediate);
        yield* good.consume(options);
      },
    }),
    noticed: ["a group goes on where it was, without members too"],
    isBroad: true,
  },
  {
    name: "keeps what is not to be kept",
    breakIt: (good) => ({
      async publish(message, options) {
        const answer = await good.publish(message, {});
        return options?.keep === false ? {} : answer;
      },
    }),
    noticed: ["what is not kept goes to those who are there, in its turn, and to nobody later"],
  },
  {
    name: "loses what is not to be kept",
    breakIt: (good) => ({
      publish: async (message, options) => (options?.keep === false ? {} : good.publish(message, options)),
    }),
    noticed: ["what is not kept goes to those who are there, in its turn, and to nobody later"],
  },
  {
    name: "lets what is not kept overtake what is",
    breakIt: (good) => ({
      subscribe: readingAhead(good, (ready) => {
        const first = ready.findIndex(({ position }) => position === undefined);
        return ready.splice(Math.max(0, first), 1)[0];
      }),
    }),
    noticed: ["what is not kept goes to those who are there, in its turn, and to nobody later"],
  },
  {
    name: "holds everything for one who does not read",
    breakIt: (good) => ({
      async publish(message, options) {
        const answer = await good.publish(message, options);
        // Time for those who read ahead.
        await new Promise(setImmediate);
        return answer;
      },
      subscribe: readingAhead(good, (ready) => ready.shift()),
    }),
    noticed: ["what is not kept and not read takes no place for ever"],
  },
  {
    name: "loses a message of a group",
    breakIt: (good) => ({
      consume: redeliver(good, async (delivery, index) => {
        if (index !== 15) return delivery;
        await delivery.ack();
        return undefined;
      }),
    }),
    noticed: ["members share what comes, and two groups get it all"],
  },
  {
    name: "delivers to every member of a group",
    breakIt(good) {
      let members = 0;
      return {
        consume: (options) => good.consume({ ...options, group: `${options.group}-${++members}` }),
      };
    },
    noticed: ["members share what comes, and two groups get it all"],
  },
  {
    name: "has one group for all names",
    breakIt: (good) => ({ consume: (options) => good.consume({ ...options, group: "all" }) }),
    noticed: ["members share what comes, and two groups get it all"],
  },
  {
    name: "tells groups apart by their name alone",
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
    noticed: ["members share what comes, and two groups get it all"],
  },
  {
    name: "forgets a group with its last member",
    breakIt: (good) => ({
      async *consume(options) {
        try {
          yield* good.consume(options);
        } finally {
          await good.removeGroup(options);
        }
      },
    }),
    noticed: ["a group goes on where it was, without members too"],
  },
  {
    name: "begins a group again where its next member says",
    breakIt: (good) => ({
      async *consume(options) {
        if (options.after !== undefined) await good.removeGroup(options);
        yield* good.consume(options);
      },
    }),
    noticed: ["a group goes on where it was, without members too"],
  },
  {
    name: "delivers again what is done with",
    breakIt: (good) => ({ consume: redeliver(good, async (it) => ({ ...it, ack: () => it.nack(5) })) }),
    noticed: ["what is not settled in time is delivered again, and a late ack settles it"],
  },
  {
    name: "takes no late ack",
    breakIt(good) {
      const latest = new Map<unknown, number>();
      return {
        consume: redeliver(good, async (it) => {
          latest.set(it.message.position, it.attempt);
          const isLate = () => latest.get(it.message.position) !== it.attempt;
          return { ...it, ack: async () => (isLate() ? undefined : it.ack()) };
        }),
      };
    },
    noticed: ["what is not settled in time is delivered again, and a late ack settles it"],
  },
  {
    name: "takes a late nack",
    breakIt(good) {
      const latest = new Map<unknown, BusDelivery>();
      return {
        consume: redeliver(good, async (it) => {
          latest.set(it.message.position, it);
          return { ...it, nack: async (delayMs) => latest.get(it.message.position)?.nack(delayMs) };
        }),
      };
    },
    noticed: ["what is given back is delivered again, at once or later"],
  },
  {
    name: "does not deliver again what was given back",
    breakIt: (good) => ({ consume: redeliver(good, async (it) => ({ ...it, nack: () => it.ack() })) }),
    noticed: ["what is given back is delivered again, at once or later"],
  },
  {
    name: "delivers again without the delay",
    breakIt: (good) => ({ consume: redeliver(good, async (it) => ({ ...it, nack: () => it.nack() })) }),
    noticed: ["what is given back is delivered again, at once or later"],
  },
  {
    name: "does not count attempts",
    breakIt: (good) => ({ consume: redeliver(good, async (it) => ({ ...it, attempt: 1 })) }),
    noticed: [
      "what is given back is delivered again, at once or later",
      "what is not settled in time is delivered again, and a late ack settles it",
      "what a member leaves goes to another",
    ],
  },
  {
    name: "never delivers again what is not settled in time",
    breakIt: (good) => ({ consume: (options) => good.consume({ ...options, ackWaitMs: 2 ** 31 }) }),
    noticed: ["what is not settled in time is delivered again, and a late ack settles it"],
  },
  {
    name: "takes a member's end for its ack",
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
    noticed: ["what a member leaves goes to another"],
  },
  {
    name: "gives a member more than it can settle",
    breakIt: (good) => ({ consume: (options) => good.consume({ ...options, maxInFlight: 1_000 }) }),
    noticed: ["a member gets no more than it can settle"],
  },
  {
    name: "gives one at a time",
    breakIt: (good) => ({ consume: (options) => good.consume({ ...options, maxInFlight: 1 }) }),
    noticed: ["a member gets no more than it can settle"],
    isBroad: true,
  },
  {
    name: "removes no group",
    breakIt: () => ({ removeGroup: async () => {} }),
    noticed: ["a group that was removed is a new one, and its members end"],
  },
  {
    name: "drops nothing",
    breakIt: () => ({ drop: async () => {} }),
    noticed: ["what was dropped is gone, with the groups in it, and the rest stays"],
  },
  {
    name: "drops everything",
    breakIt: (good) => ({ drop: () => good.drop("#") }),
    noticed: ["what was dropped is gone, with the groups in it, and the rest stays"],
  },
  {
    name: "drops messages, and not the groups",
    breakIt(good) {
      let dropped: string | undefined;
      return {
        async drop(filter) {
          dropped = filter.replace(/\/#$/, "");
        },
        subscribe: retell(good, (message) => {
          const isDropped = dropped !== undefined && `${message.topic}/`.startsWith(`${dropped}/`);
          return isDropped && Buffer.from(message.payload).toString() !== "anew" ? undefined : message;
        }),
      };
    },
    noticed: ["what was dropped is gone, with the groups in it, and the rest stays"],
  },
  {
    name: "does not end readers",
    breakIt: (good) => ({ subscribe: (options) => good.subscribe({ ...options, signal: forever() }) }),
    noticed: ["readers end when asked to, and when nobody reads on"],
  },
  {
    name: "does not end members",
    breakIt: (good) => ({ consume: (options) => good.consume({ ...options, signal: forever() }) }),
    noticed: ["readers end when asked to, and when nobody reads on"],
  },
  {
    name: "is not well while it is started",
    breakIt: () => ({ health: () => "it is not" }),
    noticed: ["it is healthy while it is started, and may be stopped twice"],
  },
  {
    name: "goes on after it is stopped",
    breakIt: () => ({}),
    goesOn: true,
    noticed: ["it is healthy while it is started, and may be stopped twice"],
  },
  {
    name: "ends readers without a word when it is stopped",
    breakIt: (good) => ({
      async *subscribe(options) {
        try {
          yield* good.subscribe(options);
        } catch {
          // As if nothing came any more.
        }
      },
    }),
    noticed: ["it is healthy while it is started, and may be stopped twice"],
  },
  {
    name: "says that it is durable, and is not",
    breakIt: () => ({}),
    durable: true,
    noticed: ["a later daemon finds messages, positions and groups as they were"],
  },
];

const LIMITS = { maxMessages: 10_000, maxBytes: 64 * 2 ** 20, maxGroups: 1_000 };

function subjectOf({ breakIt, goesOn = false }: Fault): MessageBusSubject {
  const open = () => {
    const { bus, stop } = createMemoryBus(systemClock, LIMITS);
    return { bus: { ...bus, ...breakIt(bus) }, ...(goesOn ? {} : { stop }) };
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
