import { describe, expect, it, test } from "vitest";
import { systemClock } from "../../../core/index.js";
import { createMemoryBus } from "../../../plugins/bus-memory/memory-bus.js";
import { testMessageBus } from "../../contract/index.js";

const LIMITS = { maxMessages: 10_000, maxBytes: 64 * 2 ** 20, maxGroups: 1_000 };

testMessageBus({
  test,
  factory: () => createMemoryBus(systemClock, LIMITS),
  capabilities: { durable: false },
});

describe("what it holds is bounded", () => {
  const signal = new AbortController().signal;
  const open = (limits: Partial<typeof LIMITS>) => createMemoryBus(systemClock, { ...LIMITS, ...limits }).bus;
  type Bus = ReturnType<typeof open>;
  const send = (bus: Bus, text: string) => bus.publish({ topic: "t", payload: Buffer.from(text) });
  const kept = async (bus: Bus, count: number, after = "0") => {
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

  it("in messages: the oldest make room, and a position that was dropped reads on at the oldest", async () => {
    const bus = open({ maxMessages: 3 });
    const { position = "" } = await send(bus, "1");
    for (const text of ["2", "3", "4", "5"]) await send(bus, text);
    expect(await kept(bus, 3)).toEqual(["3", "4", "5"]);
    expect(await kept(bus, 3, position)).toEqual(["3", "4", "5"]);
  });

  it("in bytes, and the newest is kept whatever its size", async () => {
    const bus = open({ maxBytes: 100 });
    await send(bus, "a".repeat(60));
    await send(bus, "b".repeat(60));
    expect(await kept(bus, 1)).toEqual(["b".repeat(60)]);
    await send(bus, "c".repeat(200));
    expect(await kept(bus, 1)).toEqual(["c".repeat(200)]);
  });

  it("in what groups are to get again: what was dropped is not delivered any more", async () => {
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

  it("in groups: the one that was left longest ago is forgotten", async () => {
    const bus = open({ maxGroups: 2 });
    for (const text of ["1", "2"]) await send(bus, text);
    for (const group of ["a", "b", "a"]) await (await first(bus, group))?.ack();
    await (await first(bus, "c"))?.ack();
    const { message, attempt } = (await first(bus, "b")) ?? {};
    // "b" is new again, and begins with the first message.
    expect([Buffer.from(message?.payload ?? "").toString(), attempt]).toEqual(["1", 1]);
  });

  it("positions of an earlier bus are before those of a later one", async () => {
    const { position = "" } = await send(open({}), "earlier");
    const later = createMemoryBus({ ...systemClock, now: () => Date.now() + 10 }, LIMITS).bus;
    await send(later, "1");
    expect(await kept(later, 1, position)).toEqual(["1"]);
    expect(await kept(later, 1, "9999999999999999")).toEqual(["1"]);
  });
});
