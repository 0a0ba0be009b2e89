import { describe, expect, it, test } from "vitest";
import { systemClock } from "../../../../core/index.js";
import { createMemoryBus } from "../../../../plugins/bus-memory/memory-bus.js";
import { testMessageBus } from "../../../contract/index.js";

const LIMITS = { maxMessages: 10_000, maxBytes: 64 * 2 ** 20, maxGroups: 1_000 };

testMessageBus({
  test,
  factory: () => createMemoryBus(systemClock, LIMITS),
  capabilities: { durable: false },
});

describe("bus-memory", () => {
  const signal = new AbortController().signal;
  const open = (limits: Partial<typeof LIMITS>) => createMemoryBus(systemClock, { ...LIMITS, ...limits }).bus;
  type Bus = ReturnType<typeof open>;
  const send = (bus: Bus, text: string) => bus.publish({ topic: "t", payload: Buffer.from(text) });
  const readKept = async (bus: Bus, count: number, after = "0") => {
    const seen: string[] = [];
    for await (const { payload } of bus.subscribe({ filter: "#", after, signal })) {
      seen.push(Buffer.from(payload).toString());
      if (seen.length === count) break;
    }
    return seen;
  };
  const first = async (bus: Bus, group: string, after = "0") => {
    const options = { filter: "#", group, after, ackWaitMs: 60_000, maxInFlight: 1, signal };
    for await (const delivery of bus.consume(options)) return delivery;
    return undefined;
  };

  it("the oldest messages are evicted above max_messages, and reading from an evicted position starts at the oldest", async () => {
    const bus = open({ maxMessages: 3 });
    const { position = "" } = await send(bus, "1");
    for (const text of ["2", "3", "4", "5"]) await send(bus, text);
    expect(await readKept(bus, 3)).toEqual(["3", "4", "5"]);
    expect(await readKept(bus, 3, position)).toEqual(["3", "4", "5"]);
  });

  it("the oldest messages are evicted above max_size, and the newest is kept whatever its size", async () => {
    const bus = open({ maxBytes: 100 });
    await send(bus, "a".repeat(60));
    await send(bus, "b".repeat(60));
    expect(await readKept(bus, 1)).toEqual(["b".repeat(60)]);
    await send(bus, "c".repeat(200));
    expect(await readKept(bus, 1)).toEqual(["c".repeat(200)]);
  });

  it("an evicted message is not delivered again to a group", async () => {
    const bus = open({ maxMessages: 2 });
    const options = { filter: "t", group: "g", ackWaitMs: 60_000, maxInFlight: 9, signal };
    const deliveries = bus.consume(options)[Symbol.asyncIterator]();
    const next = deliveries.next();
    for (const text of ["1", "2"]) await send(bus, text);
    const one = (await next).value;
    for (const text of ["3", "4"]) await send(bus, text);
    await one.nack();
    const texts = [];
    for (let index = 0; index < 2; index++) {
      const { value } = await deliveries.next();
      texts.push(Buffer.from(value.message.payload).toString());
    }
    expect(texts).toEqual(["3", "4"]);
  });

  it("20,000 simultaneous redeliveries are queued within a second", async () => {
    const due: (() => void)[] = [];
    const after = (delayMs: number, callback: () => void) => {
      if (delayMs === 5) due.push(callback);
      return () => {};
    };
    const { bus } = createMemoryBus({ now: Date.now, after }, { ...LIMITS, maxMessages: 20_000 });
    for (let count = 0; count < 20_000; count++) await send(bus, String(count));
    const options = { filter: "t", group: "g", after: "0", ackWaitMs: 60_000, maxInFlight: 1, signal };
    const deliveries = bus.consume(options)[Symbol.asyncIterator]();
    for (let count = 0; count < 20_000; count++) await (await deliveries.next()).value.nack(5);
    const begun = performance.now();
    // The newest first, as random delays may have it.
    for (const callback of due.reverse()) callback();
    // A tenth of the time that sorting the whole queue for each would take.
    expect(performance.now() - begun).toBeLessThan(1_000);
    const { value } = await deliveries.next();
    expect([Buffer.from(value.message.payload).toString(), value.attempt]).toEqual(["0", 2]);
  });

  it("transient messages for slow readers are limited in total, and a reader that keeps up loses none", async () => {
    const bus = open({});
    const over = new AbortController();
    const readerOf = async (filter: string) => {
      const messages = bus.subscribe({ filter, signal: over.signal })[Symbol.asyncIterator]();
      return { messages, next: messages.next() };
    };
    const slow = await Promise.all(Array.from({ length: 200 }, (_, n) => readerOf(`slow/${n}`)));
    const { messages, next } = await readerOf("quick");
    const size = 2 ** 20;
    const publishTransient = (topic: string) =>
      bus.publish({ topic, payload: Buffer.alloc(size) }, { keep: false });
    for (let n = 0; n < slow.length; n++)
      for (let times = 0; times < 3; times++) await publishTransient(`slow/${n}`);
    await publishTransient("quick");
    expect((await next).value?.topic).toBe("quick");
    await messages.return?.();
    let bytes = 0;
    for (const reader of slow) {
      // The first was delivered as it came; the rest of the backlog is read until it is empty.
      for (let it: unknown = await reader.next; it; ) {
        bytes += size;
        it = await Promise.race([reader.messages.next(), new Promise((resolve) => setImmediate(resolve))]);
      }
    }
    over.abort();
    // Each reader's first message was taken as it came.
    expect(bytes).toBeLessThanOrEqual((64 + slow.length) * size);
    expect(bytes).toBeGreaterThan(slow.length * size);
  });

  it("above max_groups, the group without members for the longest time is removed", async () => {
    const bus = open({ maxGroups: 2 });
    for (const text of ["1", "2"]) await send(bus, text);
    for (const group of ["a", "b", "a"]) await (await first(bus, group))?.ack();
    await (await first(bus, "c"))?.ack();
    const { message, attempt } = (await first(bus, "b")) ?? {};
    // "b" is a new group, and starts at the first message.
    expect([Buffer.from(message?.payload ?? "").toString(), attempt]).toEqual(["1", 1]);
  });

  it("positions of an earlier bus come before those of a later one", async () => {
    const { position = "" } = await send(open({}), "earlier");
    const later = createMemoryBus({ ...systemClock, now: () => Date.now() + 10 }, LIMITS).bus;
    await send(later, "1");
    expect(await readKept(later, 1, position)).toEqual(["1"]);
    expect(await readKept(later, 1, "9999999999999999")).toEqual(["1"]);
  });
});
