import assert from "node:assert/strict";
import type { BusDelivery, BusMessage, ConsumeOptions, MessageBus } from "../../core/index.js";

/** One implementation under test, with storage that no other test uses. */
export interface MessageBusSubject {
  bus: MessageBus;
  start?(): Promise<void> | void;
  stop?(): Promise<void> | void;
  /** Creates a second subject on the same storage, as a later daemon would open it. Required when `durable`. */
  reopen?(): Promise<MessageBusSubject> | MessageBusSubject;
}

export interface MessageBusSuite {
  /** Registers one test: `test` of vitest, node:test, mocha and others. */
  test: (name: string, run: () => Promise<void>) => void;
  /** Creates a subject that is not started. It must keep at least 1,000 messages and 10 groups. */
  factory: () => Promise<MessageBusSubject> | MessageBusSubject;
  /** The capabilities of the implementation. They select the tests. */
  capabilities: MessageBus["capabilities"];
}

/**
 * Registers the tests of the contract in `core/contracts/message-bus.ts`. They call the implementation directly, in
 * real time.
 */
export function testMessageBus(suite: MessageBusSuite): void {
  testMessages(suite);
  testFilters(suite);
  testPositions(suite);
  testTransient(suite);
  testGroups(suite);
  testAcknowledging(suite);
  testAvailability(suite);
  if (suite.capabilities.durable) testDurability(suite);
}

/** Runs each test on a started subject, and stops it afterwards. The signal ends the test's iterations. */
function withBus({ test, factory }: MessageBusSuite) {
  return (
    name: string,
    run: (bus: MessageBus, signal: AbortSignal, subject: MessageBusSubject) => Promise<void>,
  ): void =>
    test(`message bus: ${name}`, async () => {
      const subject = await factory();
      await subject.start?.();
      const over = new AbortController();
      try {
        await run(subject.bus, over.signal, subject);
      } finally {
        over.abort();
        await subject.stop?.();
      }
    });
}

function testMessages(suite: MessageBusSuite): void {
  const it = withBus(suite);

  it("a message arrives unchanged, with its sender and reply topic", async (bus, signal) => {
    const messages = reader(bus.subscribe({ filter: "#", signal }));
    const bytes = Uint8Array.from([0, 255, 128, 10]);
    const { position } = await bus.publish({
      topic: "reports/é/日",
      payload: bytes,
      from: "agent:a",
      reply_to: "_reply/1",
    });
    bytes.fill(1);
    await bus.publish({ topic: "empty", payload: new Uint8Array() });
    const [first, second] = await messages.take(2);
    assert(first && second && position, "a kept message has a position");
    assert.match(position, /^[\x21-\x7e]{1,64}$/);
    assert.equal(new Date(first.at).toISOString(), first.at);
    const { at: _, payload, ...rest } = first;
    assert.deepEqual(rest, { position, topic: "reports/é/日", from: "agent:a", reply_to: "_reply/1" });
    assert.deepEqual([...payload], [0, 255, 128, 10]);
    assert.deepEqual([second.payload.byteLength, second.from, second.reply_to], [0, undefined, undefined]);
  });

  it("a message of 1 MiB arrives complete", async (bus, signal) => {
    const messages = reader(bus.subscribe({ filter: "large", signal }));
    const payload = new Uint8Array(2 ** 20).map((_, index) => index % 251);
    await bus.publish({ topic: "large", payload });
    const [message] = await messages.take(1);
    assert.equal(Buffer.compare(message?.payload ?? new Uint8Array(), payload), 0);
  });

  it("all readers see the same order, also of messages published concurrently", async (bus, signal) => {
    const readers = ["#", "t/+", "t/#"].map((filter) => reader(bus.subscribe({ filter, signal })));
    await Promise.all(Array.from({ length: 100 }, (_, index) => send(bus, `t/${index % 7}`, String(index))));
    const seen = await Promise.all(readers.map(async (one) => texts(await one.take(100))));
    assert.equal(new Set(seen[0]).size, 100);
    for (const other of seen) assert.deepEqual(other, seen[0]);
  });

  it("messages published one after the other arrive in that order", async (bus, signal) => {
    const messages = reader(bus.subscribe({ filter: "t", signal }));
    const sent = Array.from({ length: 50 }, (_, index) => String(index));
    for (const text of sent) await send(bus, "t", text);
    assert.deepEqual(texts(await messages.take(50)), sent);
  });
}

/** A filter, topics that it matches, and topics that it does not match. */
const FILTERS: [string, string[], string[]][] = [
  ["a/b", ["a/b"], ["a", "a/b/c", "a/B", "a/bb"]],
  ["+", ["a", "é"], ["a/b"]],
  ["a/+/c", ["a/b/c", "a/+x/c"], ["a/c", "a/b/b/c", "a/b/c/d"]],
  ["a/#", ["a", "a/b", "a/b/c"], ["ab", "b/a"]],
  ["+/b/#", ["a/b", "c/b/d/e"], ["b", "a/c/b"]],
  ["#", ["a", "a/b/c", "_reply/1"], []],
];

function testFilters(suite: MessageBusSuite): void {
  const it = withBus(suite);

  for (const [filter, matching, others] of FILTERS) {
    it(`the filter "${filter}" matches the right topics only`, async (bus, signal) => {
      const messages = reader(bus.subscribe({ filter, signal }));
      const members = reader(bus.consume(consuming({ filter, signal })));
      for (const topic of [...others, ...matching]) await send(bus, topic, topic);
      assert.deepEqual(texts(await messages.take(matching.length)), matching);
      const shared = await members.take(matching.length);
      assert.deepEqual(texts(shared.map(({ message }) => message)), matching);
      const again = reader(bus.subscribe({ filter, after: "0", signal }));
      assert.deepEqual(texts(await again.take(matching.length)), matching);
    });
  }
}

function testPositions(suite: MessageBusSuite): void {
  const it = withBus(suite);

  it("a subscription without a position gets new messages only", async (bus, signal) => {
    await send(bus, "t", "before");
    const messages = reader(bus.subscribe({ filter: "t", signal }));
    await send(bus, "t", "after");
    assert.deepEqual(texts(await messages.take(1)), ["after"]);
  });

  it("a subscription after a position gets the kept messages and then new ones, each once", async (bus, signal) => {
    await send(bus, "t", "1");
    const { position } = await send(bus, "t", "2");
    for (const text of ["3", "4"]) await send(bus, "t", text);
    const messages = reader(bus.subscribe({ filter: "t", signal, ...after(position) }));
    const all = reader(bus.subscribe({ filter: "t", signal, after: "0" }));
    await send(bus, "t", "5");
    assert.deepEqual(texts(await messages.take(3)), ["3", "4", "5"]);
    assert.deepEqual(texts(await all.take(5)), ["1", "2", "3", "4", "5"]);
  });

  it("a position of a message on another topic is valid", async (bus, signal) => {
    await send(bus, "a", "1");
    const { position } = await send(bus, "b", "2");
    await send(bus, "a", "3");
    const messages = reader(bus.subscribe({ filter: "a", signal, ...after(position) }));
    assert.deepEqual(texts(await messages.take(1)), ["3"]);
  });

  it("a reader that resumes after its last position misses and repeats nothing", async (bus, signal) => {
    for (let index = 0; index < 30; index++) await send(bus, "t", String(index));
    const seen: BusMessage[] = [];
    while (seen.length < 30) {
      for await (const message of bus.subscribe({
        filter: "t",
        signal,
        ...after(seen.at(-1)?.position ?? "0"),
      })) {
        seen.push(message);
        if (seen.length % 7 === 0 || seen.length === 30) break;
      }
    }
    assert.deepEqual(
      texts(seen),
      Array.from({ length: 30 }, (_, index) => String(index)),
    );
  });

  it("a slow reader gets all kept messages later", async (bus, signal) => {
    const messages = reader(bus.subscribe({ filter: "t", signal }));
    const sent = Array.from({ length: 900 }, (_, index) => String(index));
    await Promise.all(sent.map((text) => send(bus, "t", text)));
    assert.deepEqual(texts(await messages.take(900)), sent);
  });

  it("an invalid position is refused at once", async (bus, signal) => {
    const wrong = { filter: "t", after: "no position\n", signal };
    assert.throws(() => bus.subscribe(wrong), { code: "input_invalid" });
    assert.throws(() => bus.consume(consuming(wrong)), { code: "input_invalid" });
  });
}

function testTransient(suite: MessageBusSuite): void {
  const it = withBus(suite);
  const publishTransient = (bus: MessageBus, topic: string, text: string) =>
    bus.publish({ topic, payload: Buffer.from(text) }, { keep: false });

  it("a message with keep: false goes to current subscribers only, in its place in the order", async (bus, signal) => {
    const messages = reader(bus.subscribe({ filter: "t", signal }));
    const others = reader(bus.subscribe({ filter: "other", signal }));
    const group = reader(bus.consume(consuming({ filter: "t", signal })));
    await send(bus, "t", "0");
    await send(bus, "t", "1");
    assert.deepEqual(await publishTransient(bus, "t", "2"), {});
    await send(bus, "t", "3");
    await send(bus, "other", "end");
    const seen = await messages.take(4);
    assert.deepEqual(texts(seen), ["0", "1", "2", "3"]);
    assert.equal(seen[2]?.position, undefined);
    assert.deepEqual(texts(await others.take(1)), ["end"]);
    const later = reader(bus.subscribe({ filter: "t", after: "0", signal }));
    assert.deepEqual(texts(await later.take(3)), ["0", "1", "3"]);
    assert.deepEqual(texts((await group.take(3)).map(({ message }) => message)), ["0", "1", "3"]);
  });

  it("unread messages with keep: false do not accumulate without limit", async (bus, signal) => {
    const messages = reader(bus.subscribe({ filter: "t", signal }));
    for (let index = 0; index < 100; index++) {
      await bus.publish({ topic: "t", payload: new Uint8Array(2 ** 20) }, { keep: false });
    }
    await send(bus, "t", "kept");
    let lost = 100;
    for (let one = await messages.take(1); one[0]?.position === undefined; one = await messages.take(1))
      lost--;
    assert(lost > 0, "100 MiB waited for one reader");
  });
}

function testGroups(suite: MessageBusSuite): void {
  const it = withBus(suite);

  it("members of a group share the messages, and every group gets all of them", async (bus, signal) => {
    const one = consuming({ filter: "t", group: "one", maxInFlight: 100, signal });
    const ends = new AbortController();
    const members = [0, 1].map(() => reader(bus.consume({ ...one, signal: ends.signal })));
    const other = reader(bus.consume({ ...one, group: "other" }));
    const sameName = reader(bus.consume({ ...one, filter: "+" }));
    for (let index = 0; index < 40; index++) await send(bus, "t", String(index));
    const seen: string[] = [];
    const working = members.map(async (member) => {
      for (;;) {
        const [delivery] = await member.take(1);
        if (!delivery) return;
        seen.push(textOf(delivery.message));
        await delivery.ack();
      }
    });
    const work = Promise.all(working);
    // An error before `work` is awaited shows in the deliveries that are missing.
    work.catch(() => {});
    await waitUntil(() => seen.length === 40, "40 deliveries");
    const numbers = Array.from({ length: 40 }, (_, index) => String(index));
    assert.deepEqual([...seen].sort(byNumber), numbers);
    for (const whole of [other, sameName]) {
      assert.deepEqual(texts((await whole.take(40)).map(({ message }) => message)), numbers);
    }
    ends.abort();
    await work;
  });

  it("a group continues where it was after a time without members", async (bus, signal) => {
    const options = consuming({ filter: "t", signal });
    await send(bus, "t", "before");
    const first = reader(bus.consume(options));
    await send(bus, "t", "1");
    const [delivery] = await first.take(1);
    assert.equal(delivery && textOf(delivery.message), "1");
    assert.equal(delivery?.attempt, 1);
    await delivery?.ack();
    await first.end();
    await send(bus, "t", "2");
    const later = reader(bus.consume({ ...options, after: "0" }));
    const [next] = await later.take(1);
    assert.deepEqual([next && textOf(next.message), next?.attempt], ["2", 1]);
  });

  it("a new group starts after the given position", async (bus, signal) => {
    const { position } = await send(bus, "t", "1");
    await send(bus, "t", "2");
    const all = reader(bus.consume(consuming({ filter: "t", group: "all", after: "0", signal })));
    const rest = reader(bus.consume(consuming({ filter: "t", group: "rest", signal, ...after(position) })));
    assert.deepEqual(texts((await all.take(2)).map(({ message }) => message)), ["1", "2"]);
    assert.deepEqual(texts((await rest.take(1)).map(({ message }) => message)), ["2"]);
  });

  it("removing a group ends its members, and its name is a new group afterwards", async (bus, signal) => {
    const options = consuming({ filter: "t", group: "g", signal });
    const member = reader(bus.consume(options));
    await send(bus, "t", "1");
    const [delivery] = await member.take(1);
    await bus.removeGroup(options);
    await bus.removeGroup({ filter: "t", group: "never" });
    assert.deepEqual(await member.take(1), []);
    await delivery?.ack();
    const anew = reader(bus.consume({ ...options, after: "0" }));
    const [again] = await anew.take(1);
    assert.deepEqual([again && textOf(again.message), again?.attempt], ["1", 1]);
  });

  it("a drop removes the matching messages and groups, and nothing else", async (bus, signal) => {
    const on = (filter: string) => consuming({ filter, after: "0", maxInFlight: 1, signal });
    const inside = reader(bus.consume(on("a/x/#")));
    const across = reader(bus.consume(on("a/+/i")));
    for (const topic of ["a/x/i", "a/y/i", "a/x", "b", "a/x/i"]) await send(bus, topic, topic);
    const [first] = await across.take(1);
    await inside.take(1);
    await bus.drop("a/x/#");
    assert.deepEqual(await inside.take(1), []);
    await first?.nack();
    assert.deepEqual(texts((await across.take(1)).map(({ message }) => message)), ["a/y/i"]);
    const kept = reader(bus.subscribe({ filter: "#", after: "0", signal }));
    assert.deepEqual(texts(await kept.take(2)), ["a/y/i", "b"]);
    await send(bus, "a/x/i", "anew");
    assert.deepEqual(texts(await kept.take(1)), ["anew"]);
    const anew = await reader(bus.consume(on("a/x/#"))).take(1);
    assert.deepEqual(texts(anew.map(({ message }) => message)), ["anew"]);
  });

  it("a member gets at most maxInFlight unacknowledged messages", async (bus, signal) => {
    const member = reader(bus.consume(consuming({ filter: "t", maxInFlight: 2, signal })));
    for (const text of ["1", "2", "3", "4"]) await send(bus, "t", text);
    const [one, two] = await member.take(2);
    assert(one && two);
    assert.equal(await member.isQuiet(), true);
    await two.ack();
    assert.deepEqual(texts((await member.take(1)).map(({ message }) => message)), ["3"]);
    assert.equal(await member.isQuiet(), true);
    await one.nack(60_000);
    assert.deepEqual(texts((await member.take(1)).map(({ message }) => message)), ["4"]);
  });
}

function testAcknowledging(suite: MessageBusSuite): void {
  const it = withBus(suite);
  const describe = (delivery: BusDelivery | undefined) =>
    delivery && `${textOf(delivery.message)} attempt ${delivery.attempt}`;

  it("a message is delivered again after nack, at once or after the delay", async (bus, signal) => {
    const member = reader(bus.consume(consuming({ filter: "t", maxInFlight: 10, signal })));
    await send(bus, "t", "1");
    const [first] = await member.take(1);
    await first?.nack();
    await first?.nack();
    const [second] = await member.take(1);
    assert.equal(describe(second), "1 attempt 2");
    await first?.nack();
    const started = performance.now();
    await second?.nack(200);
    await send(bus, "t", "2");
    assert.deepEqual((await member.take(2)).map(describe), ["2 attempt 1", "1 attempt 3"]);
    assert(performance.now() - started >= 190, "it was delivered again before its delay");
    assert.equal(await member.isQuiet(), true);
  });

  it("a message that is not acknowledged in time is delivered again, and a late ack completes it", async (bus, signal) => {
    const options = consuming({ filter: "t", ackWaitMs: 100, signal });
    const member = reader(bus.consume(options));
    await send(bus, "t", "1");
    const [first] = await member.take(1);
    const [second] = await member.take(1);
    assert.equal(describe(second), "1 attempt 2");
    await first?.ack();
    await first?.ack();
    await second?.nack();
    await send(bus, "t", "2");
    const [next] = await member.take(1);
    assert.equal(describe(next), "2 attempt 1");
    await next?.ack();
    await next?.nack();
    assert.equal(await member.isQuiet(300), true);
  });

  it("unacknowledged messages of a member that leaves go to another member", async (bus, signal) => {
    const options = consuming({ filter: "t", ackWaitMs: 2_000, maxInFlight: 3, signal });
    const ends = new AbortController();
    const first = reader(bus.consume({ ...options, signal: ends.signal }));
    for (const text of ["1", "2", "3", "4"]) await send(bus, "t", text);
    const [one] = await first.take(3);
    await one?.ack();
    ends.abort();
    assert.deepEqual(await first.take(1), []);
    const other = reader(bus.consume(options));
    const seen = (await other.take(3)).map(describe);
    assert.deepEqual(seen.sort(), ["2 attempt 2", "3 attempt 2", "4 attempt 1"]);
  });
}

function testAvailability(suite: MessageBusSuite): void {
  const it = withBus(suite);

  it("an iteration ends by its signal, and by leaving the loop", async (bus, signal) => {
    const ends = new AbortController();
    const message = reader(bus.subscribe({ filter: "#", signal: ends.signal }));
    const delivery = reader(bus.consume(consuming({ filter: "#", signal: ends.signal })));
    const both = Promise.all([message.take(1), delivery.take(1)]);
    ends.abort();
    assert.deepEqual(await both, [[], []]);
    assert.deepEqual(
      await reader(bus.subscribe({ filter: "#", after: "0", signal: ends.signal })).take(1),
      [],
    );
    assert.deepEqual(await reader(bus.consume(consuming({ filter: "#", signal: ends.signal }))).take(1), []);
    await send(bus, "t", "1");
    for await (const one of bus.subscribe({ filter: "t", after: "0", signal })) {
      assert.equal(textOf(one), "1");
      break;
    }
  });

  it("a started bus is healthy, and stopping it twice is safe", async (bus, signal, subject) => {
    assert.equal(bus.health(), undefined);
    const messages = bus.subscribe({ filter: "#", signal })[Symbol.asyncIterator]().next();
    const deliveries = bus
      .consume(consuming({ filter: "#", signal }))
      [Symbol.asyncIterator]()
      .next();
    const rejections = Promise.all([
      assert.rejects(messages, { code: "bus_unavailable" }),
      assert.rejects(deliveries, { code: "bus_unavailable" }),
    ]);
    await subject.stop?.();
    await subject.stop?.();
    await rejections;
    await assert.rejects(send(bus, "t", "1"), { code: "bus_unavailable" });
    assert.equal(typeof bus.health(), "string");
  });
}

function testDurability(suite: MessageBusSuite): void {
  const it = withBus(suite);

  it("messages, positions and groups survive a restart", async (bus, signal, subject) => {
    const options = consuming({ filter: "t", maxInFlight: 10, signal });
    const member = reader(bus.consume(options));
    const { position } = await send(bus, "t", "1");
    for (const text of ["2", "3"]) await send(bus, "t", text);
    const [one] = await member.take(2);
    await one?.ack();
    await member.end();
    await subject.stop?.();
    const later = await subject.reopen?.();
    assert(later, "a subject with `durable` needs `reopen`");
    await later.start?.();
    try {
      await send(later.bus, "t", "4");
      const rest = reader(later.bus.subscribe({ filter: "t", signal, ...after(position) }));
      assert.deepEqual(texts(await rest.take(3)), ["2", "3", "4"]);
      const again = await reader(later.bus.consume(options)).take(3);
      assert.deepEqual(texts(again.map(({ message }) => message)).sort(byNumber), ["2", "3", "4"]);
    } finally {
      await later.stop?.();
    }
  });
}

const TIMEOUT_MS = 20_000;
const QUIET_MS = 100;

/** Starts reading at once, and reads one item at a time as they are asked for. */
function reader<T>(source: AsyncIterable<T>) {
  const iterator = source[Symbol.asyncIterator]();
  let asked: Promise<IteratorResult<T>> | undefined = iterator.next();
  asked.catch(() => {});
  const next = () => {
    asked ??= iterator.next();
    return asked;
  };
  return {
    /** Resolves with this many items, or fewer when the source ends. */
    async take(count: number): Promise<T[]> {
      const items: T[] = [];
      while (items.length < count) {
        const result = await Promise.race([next(), timeout(`${items.length} of ${count} items came`)]);
        if (result.done) break;
        asked = undefined;
        items.push(result.value);
      }
      return items;
    },
    /** Resolves with whether no item comes for a while. An item that comes is not lost. */
    isQuiet: (ms = QUIET_MS) =>
      Promise.race([
        next().then(
          () => false,
          () => false,
        ),
        pause(ms).then(() => true),
      ]),
    async end(): Promise<void> {
      if (!asked) await iterator.return?.();
    },
  };
}

function consuming(options: Partial<ConsumeOptions> & Pick<ConsumeOptions, "filter" | "signal">) {
  return { group: "workers", ackWaitMs: 60_000, maxInFlight: 100, ...options };
}

function send(bus: MessageBus, topic: string, text: string) {
  return bus.publish({ topic, payload: Buffer.from(text) });
}

function after(position: string | undefined): { after: string } {
  assert(position, "a kept message has a position");
  return { after: position };
}

function textOf({ payload }: BusMessage): string {
  return Buffer.from(payload).toString();
}

function texts(messages: readonly BusMessage[]): string[] {
  return messages.map(textOf);
}

function byNumber(left: string, right: string): number {
  return Number(left) - Number(right);
}

async function waitUntil(condition: () => boolean, what: string): Promise<void> {
  let isLate = false;
  void pause(TIMEOUT_MS).then(() => {
    isLate = true;
  });
  while (!condition()) {
    assert(!isLate, `${what} did not come within ${TIMEOUT_MS} ms`);
    await pause(5);
  }
}

async function timeout(what: string): Promise<never> {
  await pause(TIMEOUT_MS);
  throw new assert.AssertionError({ message: `only ${what} within ${TIMEOUT_MS} ms` });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
