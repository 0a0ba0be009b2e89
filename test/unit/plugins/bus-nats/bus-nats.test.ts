import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once, setMaxListeners } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect as connectNats } from "@nats-io/transport-node";
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  it,
  onTestFinished,
  test,
} from "vitest";
import {
  type BusDelivery,
  type BusMessage,
  type ConsumeOptions,
  messageBus,
  systemClock,
  validateSync,
} from "../../../../core/index.js";
import busNats from "../../../../plugins/bus-nats/index.js";
import { createNatsBus } from "../../../../plugins/bus-nats/nats-bus.js";
import { optionsSchema } from "../../../../plugins/bus-nats/options.js";
import { ownerOfPort } from "../../../../plugins/bus-nats/port-owner.js";
import { type MessageBusSubject, testMessageBus } from "../../../contract/index.js";
import {
  freePort,
  missingNatsServer,
  type NatsServer,
  startNatsServer,
} from "../../../helpers/nats-server.js";
import { createPluginHost } from "../../../helpers/plugin-host.js";
import { waitFor } from "../../../helpers/wait-for.js";

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
    address: "the test's server",
    connection,
  });
  const made: MessageBusSubject = { bus, start: connect, stop, reopen: () => subject(prefix, limits) };
  return made;
}

const textOfMessage = ({ value }: IteratorResult<BusMessage>) => Buffer.from(value.payload).toString();

describe.skipIf(missing !== undefined)("bus-nats", () => {
  beforeAll(async () => {
    server = await startNatsServer();
  });
  afterAll(() => server?.stop());

  testMessageBus({ test, factory: () => subject(), capabilities: { durable: true } });

  const over = new AbortController();
  setMaxListeners(0, over.signal);
  afterAll(() => over.abort());

  async function opened(limits: Partial<typeof LIMITS> = {}) {
    const { bus, start, stop } = subject(undefined, limits);
    await start?.();
    onTestFinished(async () => stop?.());
    const send = (topic: string, text: string) => bus.publish({ topic, payload: Buffer.from(text) });
    const consume = (filter: string, more: Partial<ConsumeOptions> = {}) => {
      const options = { filter, group: "g", ackWaitMs: 60_000, maxInFlight: 1, signal: over.signal, ...more };
      return bus.consume(options)[Symbol.asyncIterator]();
    };
    return { bus, send, consume };
  }
  const textOf = ({ value }: IteratorResult<BusDelivery>) => Buffer.from(value.message.payload).toString();

  it("a message of the largest size arrives with its sender and reply topic", async () => {
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
    const transient = (await seen.next()).value as BusMessage;
    expect(transient).toMatchObject({ topic: "a/_", from: "agent:é", reply_to: "_reply/ü b" });
    expect(transient.position).toBeUndefined();
    expect(Buffer.compare(transient.payload, message.payload)).toBe(0);
    const other = bus.subscribe({ filter: "a/_", after: "0", signal: over.signal })[Symbol.asyncIterator]();
    expect((await other.next()).value).toMatchObject({ from: "agent:é", position });
  });

  it("topics with any characters arrive unchanged, and each is a subject of its own", async () => {
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

  it("a dropped message that waits for redelivery does not block other messages", async () => {
    const { bus, send, consume } = await opened();
    const member = consume("+", { after: "0" });
    for (const topic of ["x", "y", "z"]) await send(topic, topic);
    const first = await member.next();
    await first.value.nack(200);
    await bus.drop("x");
    expect(textOf(await member.next())).toBe("y");
    await sleep(300);
    const other = consume("+");
    expect(textOf(await other.next())).toBe("z");
    await send("x", "anew");
    const third = consume("+");
    expect(textOf(await third.next())).toBe("anew");
  });

  it("a group gets the messages that are left after eviction", async () => {
    const { send, consume } = await opened({ maxMessages: 3 });
    const member = consume("t", { after: "0", maxInFlight: 10 });
    await send("t", "0");
    const [first] = [await member.next()];
    for (let index = 1; index < 10; index++) await send("t", String(index));
    await first.value.nack();
    const seen = [await member.next(), await member.next(), await member.next()];
    expect(seen.map(textOf)).toEqual(["7", "8", "9"]);
    expect(seen.map(({ value }) => value.attempt)).toEqual([1, 1, 1]);
  });

  it("a message for a member that left while it waited goes to the next member at once, as its first attempt", async () => {
    const { send, consume } = await opened();
    const ends = new AbortController();
    const gone = consume("t", { signal: ends.signal });
    const asked = gone.next();
    await send("other", "time for the pull to arrive");
    ends.abort();
    expect((await asked).done).toBe(true);
    await send("t", "1");
    const { value } = await consume("t").next();
    expect([Buffer.from(value.message.payload).toString(), value.attempt]).toEqual(["1", 1]);
  });

  it("each member has its own ackWaitMs", async () => {
    const { send, consume } = await opened();
    const patient = consume("t", { ackWaitMs: 60_000 });
    const asked = patient.next();
    await send("t", "1");
    expect((await asked).value.attempt).toBe(1);
    const hasty = consume("t", { ackWaitMs: 50, maxInFlight: 2 });
    const other = hasty.next();
    await send("t", "2");
    expect(textOf(await other)).toBe("2");
    const again = (await hasty.next()).value;
    expect([Buffer.from(again.message.payload).toString(), again.attempt]).toEqual(["2", 2]);
  });

  it("above max_groups, the group without members for the longest time is removed", async () => {
    const { send, consume } = await opened({ maxGroups: 2 });
    const visit = async (group: string) => {
      const member = consume("#", { group, after: "0" });
      const text = textOf(await member.next());
      await member.return?.();
      return text;
    };
    await send("t", "1");
    const first = consume("#", { group: "a", after: "0" });
    await (await first.next()).value.ack();
    await first.return?.();
    for (const group of ["b", "c"]) await visit(group);
    await send("t", "2");
    expect(await visit("a")).toBe("1");
  });

  it("calls take effect in the order in which they were made, awaited or not", async () => {
    const { bus } = await opened();
    const publish = (text: string, keep: boolean) =>
      bus.publish({ topic: "t", payload: Buffer.from(text) }, { keep });
    const all: Promise<unknown>[] = [];
    for (let index = 0; index < 10; index++) all.push(publish(`early ${index}`, index % 2 === 0));
    const reader = bus.subscribe({ filter: "t", signal: over.signal })[Symbol.asyncIterator]();
    const first = reader.next();
    const sent = Array.from({ length: 60 }, (_, index) => String(index));
    for (const [index, text] of sent.entries()) all.push(publish(text, index % 3 !== 0));
    const seen = [textOfMessage(await first)];
    while (seen.length < sent.length) seen.push(textOfMessage(await reader.next()));
    expect(seen).toEqual(sent);
    all.push(publish("dropped", true), bus.drop("t"), publish("last", true));
    await Promise.all(all);
    const again = bus.subscribe({ filter: "#", after: "0", signal: over.signal })[Symbol.asyncIterator]();
    expect(textOfMessage(await again.next())).toBe("last");
  });

  it("a drop of many messages does not delay publishers, and later readers see none of them", async () => {
    const { bus } = await opened();
    const publish = (topic: string, text: string) => bus.publish({ topic, payload: Buffer.from(text) });
    await Promise.all(Array.from({ length: 1_000 }, (_, index) => publish("a/many", String(index))));
    const drops = Promise.all([bus.drop("a/#"), bus.drop("a/many")]);
    const from = (filter: string) => ({ filter, after: "0", signal: over.signal });
    const reader = bus.subscribe(from("#"))[Symbol.asyncIterator]();
    const group = { group: "g", ackWaitMs: 60_000, maxInFlight: 1 };
    const member = bus.consume({ ...from("a/+"), ...group })[Symbol.asyncIterator]();
    const seen = [reader.next(), member.next()] as const;
    const published = publish("a/many", "later").then(() => "published");
    expect(await Promise.race([drops.then(() => "dropped"), published])).toBe("published");
    await drops;
    expect(textOfMessage(await seen[0])).toBe("later");
    expect(textOfMessage({ done: false, value: (await seen[1]).value.message })).toBe("later");
  });
});

describe.skipIf(missing !== undefined)("bus-nats after the loss of its server", () => {
  let own: NatsServer;
  beforeEach(async () => {
    own = await startNatsServer();
    server = own;
  });
  afterEach(() => own.stop());
  const over = new AbortController();
  afterAll(() => over.abort());
  const { signal } = over;

  async function opened() {
    const { bus, start, stop } = subject();
    await start?.();
    onTestFinished(async () => stop?.());
    const send = (topic: string, text: string) => bus.publish({ topic, payload: Buffer.from(text) });
    const restart = async () => {
      await own.kill();
      await waitFor(() => bus.health(), { what: "the loss to be reported" });
      await own.start();
      await waitFor(() => bus.health() === undefined, { what: "the bus to be back" });
    };
    return { bus, send, restart };
  }

  it("readers and members reject, continue after a restart, and an earlier delivery can still be acknowledged", async () => {
    const { bus, send, restart } = await opened();
    const read = (after?: string) =>
      bus.subscribe({ filter: "t", signal, ...(after ? { after } : {}) })[Symbol.asyncIterator]();
    const consume = () =>
      bus
        .consume({ filter: "t", group: "g", after: "0", ackWaitMs: 500, maxInFlight: 10, signal })
        [Symbol.asyncIterator]();
    const { position } = await send("t", "1");
    const reader = read();
    const member = consume();
    const { value: delivery } = await member.next();
    const waits = [reader.next(), member.next()].map((it) =>
      expect(it).rejects.toMatchObject({ code: "bus_unavailable" }),
    );
    await restart();
    await Promise.all(waits);
    await delivery.ack();
    await send("t", "2");
    expect(textOfMessage(await read(position).next())).toBe("2");
    const again = consume();
    const text = ({ message }: BusDelivery) => Buffer.from(message.payload).toString();
    let { value: second } = await again.next();
    // The server stores deliveries with a delay. Killed before, it knows no delivery that the ack could complete, and
    // delivers the message once more.
    if (text(second) === "1") {
      await second.ack();
      ({ value: second } = await again.next());
    }
    expect(text(second)).toBe("2");
    await second.ack();
    const silence = Promise.race([again.next().then(() => "more"), sleep(2_000, "nothing")]);
    expect(await silence).toBe("nothing");
  });

  it("dropped messages stay dropped, and acknowledged ones are kept", async () => {
    const { bus, send, restart } = await opened();
    for (let index = 0; index < 20; index++) await send(index % 2 ? "a" : "b", String(index));
    await bus.drop("a");
    await restart();
    await send("a", "last");
    const reader = bus.subscribe({ filter: "#", after: "0", signal })[Symbol.asyncIterator]();
    const seen: string[] = [];
    while (seen.at(-1) !== "last") seen.push(textOfMessage(await reader.next()));
    expect(seen).toEqual([...Array.from({ length: 10 }, (_, index) => String(index * 2)), "last"]);
  });

  it("a deleted stream is created again, and positions of the old one come before all of the new", async () => {
    const { bus, send } = await opened();
    for (const text of ["1", "2"]) await send("t", text);
    const { position } = await send("t", "3");
    const nc = await connectNats({ servers: `127.0.0.1:${own.port}` });
    const jsm = await jetstreamManager(nc);
    for await (const { config } of jsm.streams.list()) await jsm.streams.delete(config.name);
    await nc.close();
    await send("t", "lost").catch(() => {});
    await waitFor(() => send("t", "4"), { what: "the new stream" });
    for (const text of ["5", "6", "7"]) await send("t", text);
    const reader = bus.subscribe({ filter: "t", after: position as string, signal })[Symbol.asyncIterator]();
    const seen = [await reader.next(), await reader.next(), await reader.next(), await reader.next()];
    expect(seen.map(textOfMessage)).toEqual(["4", "5", "6", "7"]);
  });

  it("readers reject when another daemon recreates a deleted stream, and miss nothing of the new one", async () => {
    const one = subject();
    const other = one.reopen?.() as MessageBusSubject;
    for (const it of [one, other]) {
      await it.start?.();
      onTestFinished(async () => it.stop?.());
    }
    const send = (text: string, bus = one.bus) => bus.publish({ topic: "t", payload: Buffer.from(text) });
    const from = (after?: string) =>
      other.bus
        .subscribe({ filter: "t", signal, ...(after === undefined ? {} : { after }) })
        [Symbol.asyncIterator]();
    const reader = from();
    const first = reader.next();
    await send("1", other.bus);
    const { position } = (await first).value;
    const rejection = reader.next().catch(({ code }) => code);
    const nc = await connectNats({ servers: `127.0.0.1:${own.port}` });
    const jsm = await jetstreamManager(nc);
    for await (const { config } of jsm.streams.list()) await jsm.streams.delete(config.name);
    await nc.close();
    await waitFor(() => send("2"), { what: "the new stream" });
    await waitFor(() => other.bus.health() === undefined, { what: "the other bus to connect to it" });
    await send("3");
    expect(await rejection).toBe("bus_unavailable");
    const again = from(position);
    expect([await again.next(), await again.next()].map(textOfMessage)).toEqual(["2", "3"]);
  });
});

describe.skipIf(missing !== undefined)("bus-nats with a restricted server", () => {
  const permissions = (subscribe: string) => `authorization { users: [ { user: u, password: p, permissions: {
    publish: [ "bus.>", "_INBOX.>", "$JS.API.>", "$JS.ACK.bus.>" ], subscribe: [ ${subscribe}, "_INBOX.>" ] } } ] }`;

  async function opened(config: string, options: Record<string, unknown>) {
    const own = await startNatsServer({ config });
    onTestFinished(() => own.stop());
    const url = options["url"] === undefined ? own.url : own.url.replace("//", `//${options["url"]}@`);
    const host = createPluginHost({ plugins: [busNats({ prefix: "bus", ...options, url })] });
    onTestFinished(() => host.stop());
    await host.start();
    return { host, bus: host.use(messageBus) };
  }

  it("the documented permissions are enough", async () => {
    const { bus } = await opened(permissions('"bus.>"'), { url: "u:p" });
    expect(bus.health()).toBeUndefined();
    const over = new AbortController();
    onTestFinished(() => over.abort());
    const { signal } = over;
    const reader = bus.subscribe({ filter: "t", signal })[Symbol.asyncIterator]();
    const member = bus
      .consume({ filter: "t", group: "g", ackWaitMs: 60_000, maxInFlight: 1, signal })
      [Symbol.asyncIterator]();
    const both = [reader.next(), member.next()] as const;
    await bus.publish({ topic: "t", payload: Buffer.from("1") });
    expect(textOfMessage(await both[0])).toBe("1");
    await (await both[1]).value.ack();
    await bus.drop("#");
  });

  it("a missing permission to subscribe is reported", async () => {
    const { bus, host } = await opened(permissions('"bus.passing.>"'), { url: "u:p" });
    expect(bus.health()).toMatch(/permissions violation.*bus\.live/i);
    expect(host.problems).toEqual([expect.stringMatching(/permissions violation/i)]);
  });

  it("the token is read from token_file, again at each attempt to connect", async () => {
    const folder = mkdtempSync(join(tmpdir(), "openstarry-token-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const token_file = join(folder, "token");
    const { bus } = await opened("authorization { token: hunter2 }", { token_file });
    expect(bus.health()).toContain(`cannot read ${token_file} (ENOENT)`);
    writeFileSync(token_file, "hunter2\n");
    await waitFor(() => bus.health() === undefined, { what: "the bus", timeoutMs: 20_000 });
  });

  it("an existing stream with another configuration is not used", async () => {
    const own = await startNatsServer();
    onTestFinished(() => own.stop());
    const nc = await connectNats({ servers: `127.0.0.1:${own.port}` });
    await (await jetstreamManager(nc)).streams.add({ name: "bus", subjects: ["orders"] });
    await nc.close();
    const host = createPluginHost({ plugins: [busNats({ prefix: "bus", url: own.url })] });
    onTestFinished(() => host.stop());
    await host.start();
    expect(host.use(messageBus).health()).toMatch(/stream bus .* not made by this plugin/);
  });
});

describe("the owner of a port", () => {
  const isRoot = process.geteuid?.() === 0;
  if (!isRoot) console.warn("skipped: only root can listen as another user");

  it("the owner of a listening port is this user", async () => {
    const listener = createServer().listen(0, "127.0.0.1");
    await once(listener, "listening");
    const { port } = listener.address() as { port: number };
    expect(ownerOfPort(port)).toBe(process.geteuid?.());
    listener.close();
    await once(listener, "close");
    expect(ownerOfPort(port)).toBeUndefined();
  });

  it.skipIf(!isRoot)("the owner of a port on which another user listens is that user", async () => {
    const port = await freePort();
    const script = `require("node:net").createServer().listen(${port}, "127.0.0.1", () => console.log("up"))`;
    const child = spawn(process.execPath, ["-e", script], { uid: 65_534, gid: 65_534 });
    onTestFinished(() => void child.kill("SIGKILL"));
    await once(child.stdout, "data");
    expect(ownerOfPort(port)).toBe(65_534);
  });
});

describe("options of bus-nats", () => {
  const refusals: [string, Record<string, unknown>, RegExp][] = [
    ["neither managed nor url", {}, /url.*expected either.*neither was given/s],
    ["both managed and url", { managed: true, url: "nats://h:1" }, /both were given/],
    ["a url of another protocol", { url: "http://u:hunter2@h" }, /expected nats:\/\/host:port/],
    [
      "credentials in two places",
      { url: "nats://u:hunter2@h", token_file: "/t" },
      /expected credentials in one place only/,
    ],
    ["a relative path", { url: "nats://h", token_file: "token" }, /token_file.*absolute path/],
    ["program without managed", { url: "nats://h", program: "/p" }, /program.*"managed": true/s],
  ];
  for (const [what, options, words] of refusals) {
    it(`${what} is refused, and the message contains no password`, () => {
      const what = "options of bus-nats";
      const check = () => validateSync(optionsSchema, options, { code: "config_invalid", what });
      expect(check).toThrow(words);
      expect(check).not.toThrow(/hunter2/);
    });
  }
});
