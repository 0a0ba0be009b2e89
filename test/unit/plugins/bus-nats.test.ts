import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, test } from "vitest";
import { type BusDelivery, type BusMessage, type ConsumeOptions, systemClock } from "../../../core/index.js";
import { createNatsBus } from "../../../plugins/bus-nats/nats-bus.js";
import { type MessageBusSubject, testMessageBus } from "../../contract/index.js";
import { missingNatsServer, type NatsServer, startNatsServer } from "../../helpers/nats-server.js";

const LIMITS = { maxMessages: 10_000, maxBytes: 256 * 2 ** 20, maxGroups: 1_000 };
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const missing = missingNatsServer();

let server: NatsServer;

function subject(prefix = `t-${randomBytes(6).toString("hex")}`, limits: Partial<typeof LIMITS> = {}) {
  const connection = async () => ({ servers: `127.0.0.1:${server.port}` });
  const { bus, connect, stop } = createNatsBus({
    prefix,
    ...LIMITS,
    ...limits,
    clock: systemClock,
    log: silent,
    where: "the test's server",
    connection,
  });
  const made: MessageBusSubject = { bus, start: connect, stop, reopen: () => subject(prefix, limits) };
  return made;
}

describe.skipIf(missing !== undefined)("bus-nats", () => {
  beforeAll(async () => {
    server = await startNatsServer();
  });
  afterAll(() => server?.stop());

  testMessageBus({ test, factory: () => subject(), capabilities: { durable: true } });

  const over = new AbortController();
  afterAll(() => over.abort());

  async function opened(limits: Partial<typeof LIMITS> = {}) {
    const { bus, start, stop } = subject(undefined, limits);
    await start?.();
    onTestFinished(async () => stop?.());
    const send = (topic: string, text: string) => bus.publish({ topic, payload: Buffer.from(text) });
    const share = (filter: string, more: Partial<ConsumeOptions> = {}) => {
      const options = { filter, group: "g", ackWaitMs: 60_000, maxInFlight: 1, signal: over.signal, ...more };
      return bus.consume(options)[Symbol.asyncIterator]();
    };
    return { bus, send, share };
  }
  const textOf = ({ value }: IteratorResult<BusDelivery>) => Buffer.from(value.message.payload).toString();

  it("a message as large as the server takes arrives with all that is said of it", async () => {
    const { bus } = await opened();
    const seen = bus.subscribe({ filter: "a/#", signal: over.signal })[Symbol.asyncIterator]();
    const both = [seen.next()];
    const message = {
      topic: "a/_",
      payload: randomBytes(2 ** 20),
      from: "agent:é",
      reply_to: "_reply/ü b",
    };
    const { position } = await bus.publish(message);
    const [kept] = await Promise.all(both);
    expect(kept?.value).toMatchObject({ topic: "a/_", from: "agent:é", reply_to: "_reply/ü b", position });
    await bus.publish(message, { keep: false });
    const passing = (await seen.next()).value as BusMessage;
    expect(passing).toMatchObject({ topic: "a/_", from: "agent:é", reply_to: "_reply/ü b" });
    expect(passing.position).toBeUndefined();
    expect(Buffer.compare(passing.payload, message.payload)).toBe(0);
    const other = bus.subscribe({ filter: "a/_", after: "0", signal: over.signal })[Symbol.asyncIterator]();
    expect((await other.next()).value).toMatchObject({ from: "agent:é", position });
  });

  it("every topic is a subject of its own, and comes back as it was", async () => {
    const { bus } = await opened();
    const topics = [
      "a.b",
      "a/b",
      "a/*",
      "a/>",
      "a b/\t",
      "%41/A",
      "_",
      "_/_",
      "日本/é",
      "a/$SYS",
      "+x/#y",
      "..",
      "A",
    ];
    const seen = bus.subscribe({ filter: "#", after: "0", signal: over.signal })[Symbol.asyncIterator]();
    for (const topic of topics) await bus.publish({ topic, payload: new Uint8Array() });
    for (const topic of topics) expect((await seen.next()).value.topic).toBe(topic);
    for (const topic of topics.filter((it) => !/[+#]/.test(it))) {
      const one = bus.subscribe({ filter: topic, after: "0", signal: over.signal })[Symbol.asyncIterator]();
      expect((await one.next()).value.topic).toBe(topic);
    }
  });

  it("what waits for its next delivery and is dropped holds up nobody", async () => {
    const { bus, send, share } = await opened();
    const member = share("+", { after: "0" });
    for (const topic of ["x", "y", "z"]) await send(topic, topic);
    const first = await member.next();
    await first.value.nack(200);
    await bus.drop("x");
    expect(textOf(await member.next())).toBe("y");
    await sleep(300);
    const other = share("+");
    expect(textOf(await other.next())).toBe("z");
    await send("x", "anew");
    const third = share("+");
    expect(textOf(await third.next())).toBe("anew");
  });

  it("a group gets what is left of what the bus could not keep", async () => {
    const { send, share } = await opened({ maxMessages: 3 });
    const member = share("t", { after: "0", maxInFlight: 10 });
    await send("t", "0");
    const [first] = [await member.next()];
    for (let index = 1; index < 10; index++) await send("t", String(index));
    await first.value.nack();
    const seen = [await member.next(), await member.next(), await member.next()];
    expect(seen.map(textOf)).toEqual(["7", "8", "9"]);
    expect(seen.map(({ value }) => value.attempt)).toEqual([1, 1, 1]);
  });
});
