import { connect, type Socket } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { createFrameCheck } from "../../../../plugins/bus-mqtt/broker/mqtt/frames.js";
import { createUnreleased } from "../../../../plugins/bus-mqtt/broker/mqtt/unreleased.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { mqttClient } from "../../../helpers/mqtt.js";
import { enter, openFace, type TestFace } from "../../../helpers/mqtt-face.js";
import { waitFor } from "../../../helpers/wait-for.js";

let sockets: Socket[] = [];
const over = new AbortController();

/** Speaks bytes, and says what came and that it is over. */
async function raw(face: TestFace) {
  const socket = connect(face.port, "127.0.0.1");
  sockets.push(socket);
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("error", () => {});
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  return { socket, closed, got: () => Buffer.concat(chunks).toString("hex") };
}

const text = (it: string) => Buffer.concat([Buffer.from([0, it.length]), Buffer.from(it)]);
const packet = (first: number, ...parts: Buffer[]) => {
  const body = Buffer.concat(parts);
  return Buffer.concat([Buffer.from([first, body.length]), body]);
};
/** Clean session, user name and password. */
const connectPacket = (name: string, clientId = "c", flags = 0xc2) =>
  packet(0x10, text("MQTT"), Buffer.from([4, flags, 0, 60]), text(clientId), text("u"), text(name));

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  sockets = [];
});

describe("who is let in", () => {
  it.each([
    ["no password", {}],
    ["a password that is nobody's token", { password: "Not a token" }],
  ])("nobody with %s: CONNACK 4", async (_, how) => {
    const face = await openFace();
    await expect(mqttClient(face.port, how)).rejects.toMatchObject({ code: 4 });
  });

  it("the operator too", async () => {
    const face = await openFace();
    const operator = await enter(face, "operator");
    await operator.mqtt.publishAsync("shared/x", "x", { qos: 1 });
    for await (const message of face.bus.subscribe({ filter: "#", after: "0", signal: over.signal })) {
      expect(message.from).toBe("operator");
      break;
    }
  });

  it("a client of MQTT 3.1, and none of MQTT 5", async () => {
    const face = await openFace();
    await enter(face, "a", { protocolVersion: 3, protocolId: "MQIsdp", clientId: "old" });
    await expect(mqttClient(face.port, { password: "a", protocolVersion: 5 })).rejects.toMatchObject({
      message: expect.stringMatching(/protocol version/i),
    });
  });

  it("no client id that is too long, and none that is empty for a session that is kept: CONNACK 2", async () => {
    const face = await openFace();
    const longId = { password: "a", clientId: "x".repeat(129) };
    await expect(mqttClient(face.port, longId)).rejects.toMatchObject({ code: 2 });
    const { socket, closed, got } = await raw(face);
    socket.write(connectPacket("a", "", 0xc0));
    await closed;
    expect(got()).toBe("20020002");
  });

  it("not with a will for where it may not publish: CONNACK 5", async () => {
    const face = await openFace({ mayPublish: async (_, topic) => topic !== "agents/b/inbox" });
    const will = { payload: Buffer.from("x"), qos: 1 as const, retain: false };
    const attempt = (topic: string) => mqttClient(face.port, { password: "a", will: { ...will, topic } });
    await expect(attempt("agents/b/inbox")).rejects.toMatchObject({ code: 5 });
    await expect(attempt("shared/+")).rejects.toMatchObject({ code: 5 });
    await enter(face, "a", { will: { ...will, topic: "shared/x" } });
  });

  it("so many connections of one identity, and others beside them", async () => {
    const face = await openFace();
    for (let index = 0; index < 32; index++) await enter(face, "a");
    await expect(mqttClient(face.port, { password: "a" })).rejects.toMatchObject({ code: 3 });
    await enter(face, "b");
  });

  it("so many connections of one identity that come at once, each with a will", async () => {
    const guard = { mayPublish: () => new Promise<boolean>((resolve) => setTimeout(resolve, 200, true)) };
    const face = await openFace(guard);
    const will = { topic: "shared/gone", payload: Buffer.from("a"), qos: 1, retain: false } as const;
    const all = await Promise.allSettled(Array.from({ length: 110 }, () => enter(face, "a", { will })));
    expect(all.filter(({ status }) => status === "fulfilled")).toHaveLength(32);
  });

  it("so many connections in all, whoever they are; one more when one has gone", async () => {
    const face = await openFace();
    const all = await Promise.all(Array.from({ length: 1_000 }, () => raw(face)));
    const further = await raw(face);
    await further.closed;
    all[0]?.socket.destroy();
    await waitFor(() => enter(face, "a"), { what: "room for one more" });
    expect(all.slice(1).filter(({ socket }) => socket.destroyed)).toEqual([]);
  });

  it("nobody who says nothing for ten seconds, or speaks something else", async () => {
    const clock = createFakeClock();
    const face = await openFace({}, clock);
    const [silent, greeted] = [await raw(face), await raw(face)];
    greeted.socket.write(connectPacket("a"));
    await waitFor(() => greeted.got() === "20020000", { what: "a CONNACK" });
    await clock.advance(9_999);
    expect(silent.socket.destroyed).toBe(false);
    await clock.advance(1);
    await silent.closed;
    expect(greeted.socket.destroyed).toBe(false);
    for (const words of ["GET / HTTP/1.1\r\n\r\n", "\x30\x04\x00\x01xy", "\xff\xff\xff\xff\xff"]) {
      const stranger = await raw(face);
      stranger.socket.write(Buffer.from(words, "latin1"));
      await stranger.closed;
      expect(stranger.got()).toBe("");
    }
  });
});

describe("what a client may do", () => {
  it("a filter that it may not read, or that is none, is refused with SUBACK 128 and reads nothing", async () => {
    const face = await openFace({ maySubscribe: async (_, filter) => filter !== "agents/b/#" });
    const a = await enter(face, "a");
    const filters = ["agents/b/#", "$share/g/agents/b/#", "$SYS/#", "$share/a b/shared/x", "shared//x"];
    for (const filter of [...filters, `${"x/".repeat(16)}x`, "y".repeat(257), "shared/x"]) {
      const granted = await a.mqtt.subscribeAsync(filter, { qos: 1 }).then(
        ([first]) => first?.qos,
        () => 128,
      );
      expect([filter, granted]).toEqual([filter, filter === "shared/x" ? 1 : 128]);
    }
    for (const topic of ["agents/b/inbox", "$SYS/x", "shared/x"]) {
      await face.bus.publish({ topic, payload: Buffer.from(topic) });
    }
    expect(await a.texts(1)).toEqual(["shared/x"]);
  });

  it.each([
    ["agents/b/inbox", "agent:a may not publish there"],
    ["shared//x", "levels between slashes"],
    ["$SYS/x", "begins with $ is the broker"],
    ["shared/x\u0001", "control characters"],
    ["y".repeat(257), "1 to 256 bytes"],
  ])("a message to %s ends the connection, is not acknowledged and is not published", async (topic, why) => {
    for (const qos of [0, 1, 2] as const) {
      const face = await openFace({ mayPublish: async (_, it) => it !== "agents/b/inbox" });
      const a = await enter(face, "a");
      const closed = a.closed();
      let isAcked = false;
      a.mqtt.publish(topic, "x", { qos }, (error) => {
        isAcked = qos > 0 && !error;
      });
      await closed;
      expect(isAcked).toBe(false);
      const line = face.logged.find((it) => it.includes("was refused"));
      expect(line).toEqual(expect.stringContaining(why));
      expect(line).toEqual(expect.stringContaining('"refused":1'));
      await face.bus.publish({ topic: "end", payload: Buffer.from("end") });
      for await (const message of face.bus.subscribe({ filter: "#", after: "0", signal: over.signal })) {
        expect(message.topic).toBe("end");
        break;
      }
    }
  });

  it("it has so many subscriptions; more are refused, and one may be asked for again", async () => {
    const face = await openFace();
    const a = await enter(face, "a");
    const { socket, got, closed } = await raw(face);
    socket.write(connectPacket("b"));
    await waitFor(() => got() === "20020000", { what: "a CONNACK" });
    for (let index = 0; index < 64; index++) await a.mqtt.subscribeAsync(`shared/${index}`, { qos: 1 });
    await a.mqtt.subscribeAsync("shared/1", { qos: 0 });
    await expect(a.mqtt.subscribeAsync("shared/64", { qos: 1 })).rejects.toThrow();
    await a.mqtt.unsubscribeAsync("shared/0");
    await a.mqtt.subscribeAsync("shared/64", { qos: 1 });
    // Thousands in one packet, and more than fit into one.
    const ask = (count: number) => {
      const filters = Array.from({ length: count }, (_, index) => [text(`s/${index}`), Buffer.from([1])]);
      const body = Buffer.concat([Buffer.from([0, 7]), ...filters.flat()]);
      const { length } = body;
      socket.write(Buffer.from([0x82, (length & 0x7f) | 0x80, ((length >> 7) & 0x7f) | 0x80, length >> 14]));
      socket.write(body);
    };
    ask(5_000);
    const answers = await waitFor(() => got().length >= 2 * 5_009 && got().slice(18), { what: "a SUBACK" });
    expect(answers).toBe(`${"01".repeat(64)}${"80".repeat(4_936)}`);
    ask(100_000);
    await closed;
    expect(a.mqtt.connected).toBe(true);
  });

  it("a packet that is too large ends the connection before it has come", async () => {
    const face = await openFace();
    const before = await raw(face);
    before.socket.write(Buffer.from([0x10, 0xff, 0xff, 0x7f])); // 2 MiB of CONNECT
    await before.closed;
    const after = await raw(face);
    after.socket.write(connectPacket("a"));
    await waitFor(() => after.got() === "20020000", { what: "a CONNACK" });
    after.socket.write(Buffer.from([0x32, 0xff, 0xff, 0xff, 0x7f])); // 256 MiB of PUBLISH
    await after.closed;
    const a = await enter(face, "a");
    await a.mqtt.publishAsync("shared/x", Buffer.alloc(2 ** 20), { qos: 1 });
    const closed = a.closed();
    a.mqtt.publish("shared/x", Buffer.alloc(2 ** 20 + 1), { qos: 1 });
    await closed;
  });

  it("what is retained is shown once more to one who asks again and again and acknowledges nothing", async () => {
    const face = await openFace();
    const a = await enter(face, "a");
    for (let n = 0; n < 40; n++) await a.mqtt.publishAsync(`shared/${n}`, "x", { qos: 1, retain: true });
    const retainedTopics = vi.spyOn(face.tables, "retainedTopics");
    const { socket, got } = await raw(face);
    socket.write(connectPacket("b"));
    for (let id = 1; id <= 50; id++) {
      socket.write(packet(0x82, Buffer.from([0, id]), text("shared/#"), Buffer.from([1])));
    }
    const granted = () => got().match(/900300..01/g)?.length;
    await waitFor(() => granted() === 50, { what: "fifty SUBACKs", diagnose: granted });
    expect(retainedTopics).toHaveBeenCalledTimes(1);
  });

  it("a message of QoS 2 is new when it comes from a later run, which knows nothing of the one before", async () => {
    let runId = "run-1";
    const identify = async (name: string) => ({ name: `agent:${name}`, agentId: name, runId });
    const face = await openFace({ identify });
    for (const words of ["first", "later"]) {
      const { socket, got } = await raw(face);
      socket.write(connectPacket("a", "desk", 0xc0));
      await waitFor(() => got().startsWith("20020"), { what: "a CONNACK" });
      socket.write(packet(0x34, text("shared/x"), Buffer.from([0, 1]), Buffer.from(words)));
      await waitFor(() => got().endsWith("50020001"), { what: "a PUBREC", diagnose: got });
      socket.destroy();
      runId = "run-2";
    }
    const seen: string[] = [];
    const filter = "shared/x";
    for await (const { payload } of face.bus.subscribe({ filter, after: "0", signal: over.signal })) {
      seen.push(Buffer.from(payload).toString());
      if (seen.length === 2) break;
    }
    expect(seen).toEqual(["first", "later"]);
  });

  it("of too many messages of QoS 2 that are not released, those of who has most are forgotten", async () => {
    const unreleased = createUnreleased(10, 100);
    const [many, few] = [
      { session: "many", runId: "run-1" },
      { session: "few", runId: "run-2" },
    ];
    const done = Promise.resolve();
    unreleased.add(few, 1, done);
    for (let id = 1; id <= 100; id++) unreleased.add(many, id, done);
    expect([unreleased.find(few, 1), unreleased.find(many, 1)]).toEqual([done, undefined]);
    unreleased.add(many, 1, done);
    unreleased.release("many", 1);
    unreleased.release("few", 1);
    expect([unreleased.find(few, 1), unreleased.find(many, 1)]).toEqual([undefined, undefined]);
  });

  it("a message of QoS 2 is published once, however often it comes, also by a session that came back", async () => {
    const face = await openFace();
    const publish = packet(0x34, text("shared/x"), Buffer.from([0, 5]), Buffer.from("once"));
    for (const expected of ["20020000", "20020000"]) {
      const { socket, got } = await raw(face);
      socket.write(connectPacket("a", "desk", 0xc0));
      await waitFor(() => got().startsWith(expected), { what: "a CONNACK" });
      socket.write(publish);
      socket.write(Buffer.concat([Buffer.from([publish.readUInt8(0) | 8]), publish.subarray(1)]));
      // A PUBREC for each.
      await waitFor(() => got() === `${expected}5002000550020005`, { what: "two PUBRECs", diagnose: got });
      socket.destroy();
    }
    // Another one of the same name has nothing to do with it.
    const other = await raw(face);
    other.socket.write(connectPacket("b", "desk", 0xc2));
    await waitFor(() => other.got() === "20020000", { what: "a CONNACK" });
    const { socket, got } = await raw(face);
    socket.write(connectPacket("a", "desk", 0xc0));
    socket.write(Buffer.from([0x62, 2, 0, 5]));
    await waitFor(() => got() === "2002000070020005", { what: "a PUBCOMP", diagnose: got });
    socket.write(publish);
    await waitFor(() => got() === "200200007002000550020005", { what: "a PUBREC", diagnose: got });
    await face.bus.publish({ topic: "end", payload: Buffer.from("end") });
    const seen: string[] = [];
    for await (const { payload } of face.bus.subscribe({ filter: "#", after: "0", signal: over.signal })) {
      seen.push(Buffer.from(payload).toString());
      if (seen.at(-1) === "end") break;
    }
    expect(seen).toEqual(["once", "once", "end"]);
  });
});

describe("the lengths that packets announce", () => {
  const limits = { publishBytes: 20_000, bytes: 100 };
  const whole = (type: number, length: number[], size: number) =>
    Buffer.from([type, ...length, ...Array(size).fill(0x3f)]);
  const [greeting, publish] = [whole(0x10, [100], 100), whole(0x33, [0xa0, 0x9c, 0x01], 20_000)];

  it("are read wherever the stream is cut; a PUBLISH may be large, when it is not the first", () => {
    const stream = Buffer.concat([greeting, whole(0xc0, [0], 0), publish, whole(0x82, [100], 100)]);
    for (const size of [1, 2, 3, 7, 101, 5_000, stream.length]) {
      const fits = createFrameCheck(limits);
      for (let at = 0; at < stream.length; at += size) {
        expect(fits(stream.subarray(at, at + size))).toBe(true);
      }
      expect(fits(Buffer.from([0x30, 0xa1, 0x9c]))).toBe(true);
      expect(fits(Buffer.from([0x01]))).toBe(false);
    }
    for (const beginning of [
      [0x10, 101],
      [0x30, 101],
      [0x10, 0x80, 0x80, 0x80, 0x80, 0x01],
    ]) {
      expect(createFrameCheck(limits)(Buffer.from(beginning))).toBe(false);
    }
    expect(createFrameCheck(limits)(Buffer.concat([greeting, Buffer.from([0x82, 101])]))).toBe(false);
  });
});
