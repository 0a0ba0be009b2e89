import { connect, type Socket } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { createPacketSizeCheck } from "../../../../plugins/bus-mqtt/broker/mqtt/packet-size-limit.js";
import { createQos2Inflight } from "../../../../plugins/bus-mqtt/broker/mqtt/qos2-inflight.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { mqttClient } from "../../../helpers/mqtt.js";
import { connectAs, openMqttServer, type TestMqttServer } from "../../../helpers/mqtt-server.js";
import { waitFor } from "../../../helpers/wait-for.js";

let sockets: Socket[] = [];
const over = new AbortController();

/** Connects a plain socket, and collects what it receives. */
async function raw(server: TestMqttServer) {
  const socket = connect(server.port, "127.0.0.1");
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

describe("connecting", () => {
  it.each([
    ["without a password", {}],
    ["with a password that is not a valid token", { password: "Not a token" }],
  ])("a client %s is refused with CONNACK 4", async (_, how) => {
    const server = await openMqttServer();
    await expect(mqttClient(server.port, how)).rejects.toMatchObject({ code: 4 });
  });

  it("the operator can connect and publish", async () => {
    const server = await openMqttServer();
    const operator = await connectAs(server, "operator");
    await operator.mqtt.publishAsync("shared/x", "x", { qos: 1 });
    for await (const message of server.bus.subscribe({ filter: "#", after: "0", signal: over.signal })) {
      expect(message.from).toBe("operator");
      break;
    }
  });

  it("a client of MQTT 3.1 is accepted, and one of MQTT 5 refused", async () => {
    const server = await openMqttServer();
    await connectAs(server, "a", { protocolVersion: 3, protocolId: "MQIsdp", clientId: "old" });
    await expect(mqttClient(server.port, { password: "a", protocolVersion: 5 })).rejects.toMatchObject({
      message: expect.stringMatching(/protocol version/i),
    });
  });

  it("a too long client id, or an empty one with a persistent session, is refused with CONNACK 2", async () => {
    const server = await openMqttServer();
    const longId = { password: "a", clientId: "x".repeat(129) };
    await expect(mqttClient(server.port, longId)).rejects.toMatchObject({ code: 2 });
    const { socket, closed, got } = await raw(server);
    socket.write(connectPacket("a", "", 0xc0));
    await closed;
    expect(got()).toBe("20020002");
  });

  it("a will on a topic that the client may not publish to is refused with CONNACK 5", async () => {
    const server = await openMqttServer({ mayPublish: async (_, topic) => topic !== "agents/b/inbox" });
    const will = { payload: Buffer.from("x"), qos: 1 as const, retain: false };
    const attempt = (topic: string) => mqttClient(server.port, { password: "a", will: { ...will, topic } });
    await expect(attempt("agents/b/inbox")).rejects.toMatchObject({ code: 5 });
    await expect(attempt("shared/+")).rejects.toMatchObject({ code: 5 });
    await connectAs(server, "a", { will: { ...will, topic: "shared/x" } });
  });

  it("the 33rd connection of an agent is refused, and one of another agent accepted", async () => {
    const server = await openMqttServer();
    for (let index = 0; index < 32; index++) await connectAs(server, "a");
    await expect(mqttClient(server.port, { password: "a" })).rejects.toMatchObject({ code: 3 });
    await connectAs(server, "b");
  });

  it("of 110 simultaneous connections of an agent, each with a will, 32 are accepted", async () => {
    const authorizer = {
      mayPublish: () => new Promise<boolean>((resolve) => setTimeout(resolve, 200, true)),
    };
    const server = await openMqttServer(authorizer);
    const will = { topic: "shared/gone", payload: Buffer.from("a"), qos: 1, retain: false } as const;
    const all = await Promise.allSettled(Array.from({ length: 110 }, () => connectAs(server, "a", { will })));
    expect(all.filter(({ status }) => status === "fulfilled")).toHaveLength(32);
  });

  it("the 1,001st connection is closed, and accepted after another one has closed", async () => {
    const server = await openMqttServer();
    const all = await Promise.all(Array.from({ length: 1_000 }, () => raw(server)));
    const further = await raw(server);
    await further.closed;
    all[0]?.socket.destroy();
    await waitFor(() => connectAs(server, "a"), { what: "room for one more" });
    expect(all.slice(1).filter(({ socket }) => socket.destroyed)).toEqual([]);
  });

  it("a client that sends no CONNECT for 10 seconds, or bytes that are not MQTT, is disconnected", async () => {
    const clock = createFakeClock();
    const server = await openMqttServer({}, clock);
    const [silent, greeted] = [await raw(server), await raw(server)];
    greeted.socket.write(connectPacket("a"));
    await waitFor(() => greeted.got() === "20020000", { what: "a CONNACK" });
    await clock.advance(9_999);
    expect(silent.socket.destroyed).toBe(false);
    await clock.advance(1);
    await silent.closed;
    expect(greeted.socket.destroyed).toBe(false);
    for (const words of ["GET / HTTP/1.1\r\n\r\n", "\x30\x04\x00\x01xy", "\xff\xff\xff\xff\xff"]) {
      const stranger = await raw(server);
      stranger.socket.write(Buffer.from(words, "latin1"));
      await stranger.closed;
      expect(stranger.got()).toBe("");
    }
  });
});

describe("limits of a client", () => {
  it("a filter that is forbidden or not valid is refused with SUBACK 128", async () => {
    const server = await openMqttServer({ maySubscribe: async (_, filter) => filter !== "agents/b/#" });
    const a = await connectAs(server, "a");
    const filters = ["agents/b/#", "$share/g/agents/b/#", "$SYS/#", "$share/a b/shared/x", "shared//x"];
    for (const filter of [...filters, `${"x/".repeat(16)}x`, "y".repeat(257), "shared/x"]) {
      const granted = await a.mqtt.subscribeAsync(filter, { qos: 1 }).then(
        ([first]) => first?.qos,
        () => 128,
      );
      expect([filter, granted]).toEqual([filter, filter === "shared/x" ? 1 : 128]);
    }
    for (const topic of ["agents/b/inbox", "$SYS/x", "shared/x"]) {
      await server.bus.publish({ topic, payload: Buffer.from(topic) });
    }
    expect(await a.texts(1)).toEqual(["shared/x"]);
  });

  it.each([
    ["agents/b/inbox", "agent:a may not publish there"],
    ["shared//x", "levels between slashes"],
    ["$SYS/x", "begin with $ are reserved for the broker"],
    ["shared/x\u0001", "control characters"],
    ["y".repeat(257), "1 to 256 bytes"],
  ])(
    "a message to %s closes the connection, and is neither acknowledged nor published",
    async (topic, why) => {
      for (const qos of [0, 1, 2] as const) {
        const server = await openMqttServer({ mayPublish: async (_, it) => it !== "agents/b/inbox" });
        const a = await connectAs(server, "a");
        const closed = a.closed();
        let isAcked = false;
        a.mqtt.publish(topic, "x", { qos }, (error) => {
          isAcked = qos > 0 && !error;
        });
        await closed;
        expect(isAcked).toBe(false);
        const line = server.logged.find((it) => it.includes("was refused"));
        expect(line).toEqual(expect.stringContaining(why));
        expect(line).toEqual(expect.stringContaining('"refused":1'));
        await server.bus.publish({ topic: "end", payload: Buffer.from("end") });
        for await (const message of server.bus.subscribe({ filter: "#", after: "0", signal: over.signal })) {
          expect(message.topic).toBe("end");
          break;
        }
      }
    },
  );

  it("the 65th subscription of a client is refused, and repeating an existing one accepted", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a");
    const { socket, got, closed } = await raw(server);
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

  it("a packet that announces too large a size closes the connection before it is received", async () => {
    const server = await openMqttServer();
    const before = await raw(server);
    before.socket.write(Buffer.from([0x10, 0xff, 0xff, 0x7f])); // 2 MiB of CONNECT
    await before.closed;
    const after = await raw(server);
    after.socket.write(connectPacket("a"));
    await waitFor(() => after.got() === "20020000", { what: "a CONNACK" });
    after.socket.write(Buffer.from([0x32, 0xff, 0xff, 0xff, 0x7f])); // 256 MiB of PUBLISH
    await after.closed;
    const a = await connectAs(server, "a");
    await a.mqtt.publishAsync("shared/x", Buffer.alloc(2 ** 20), { qos: 1 });
    const closed = a.closed();
    a.mqtt.publish("shared/x", Buffer.alloc(2 ** 20 + 1), { qos: 1 });
    await closed;
  });

  it("a client that subscribes repeatedly without acknowledging gets the retained messages once more only", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a");
    for (let n = 0; n < 40; n++) await a.mqtt.publishAsync(`shared/${n}`, "x", { qos: 1, retain: true });
    const retainedTopics = vi.spyOn(server.tables, "retainedTopics");
    const { socket, got } = await raw(server);
    socket.write(connectPacket("b"));
    for (let id = 1; id <= 50; id++) {
      socket.write(packet(0x82, Buffer.from([0, id]), text("shared/#"), Buffer.from([1])));
    }
    const granted = () => got().match(/900300..01/g)?.length;
    await waitFor(() => granted() === 50, { what: "fifty SUBACKs", diagnose: granted });
    expect(retainedTopics).toHaveBeenCalledTimes(1);
  });

  it("a packet id of QoS 2 that an earlier run of the session used counts as new", async () => {
    let runId = "run-1";
    const identify = async (name: string) => ({ name: `agent:${name}`, agentId: name, runId });
    const server = await openMqttServer({ identify });
    for (const words of ["first", "later"]) {
      const { socket, got } = await raw(server);
      socket.write(connectPacket("a", "desk", 0xc0));
      await waitFor(() => got().startsWith("20020"), { what: "a CONNACK" });
      socket.write(packet(0x34, text("shared/x"), Buffer.from([0, 1]), Buffer.from(words)));
      await waitFor(() => got().endsWith("50020001"), { what: "a PUBREC", diagnose: got });
      socket.destroy();
      runId = "run-2";
    }
    const seen: string[] = [];
    const filter = "shared/x";
    for await (const { payload } of server.bus.subscribe({ filter, after: "0", signal: over.signal })) {
      seen.push(Buffer.from(payload).toString());
      if (seen.length === 2) break;
    }
    expect(seen).toEqual(["first", "later"]);
  });

  it("above the limit of QoS 2 messages in flight, those of the session with most are forgotten", async () => {
    const inflight = createQos2Inflight(10, 100);
    const [many, few] = [
      { sessionId: "many", runId: "run-1" },
      { sessionId: "few", runId: "run-2" },
    ];
    const done = Promise.resolve();
    inflight.add(few, 1, done);
    for (let id = 1; id <= 100; id++) inflight.add(many, id, done);
    expect([inflight.find(few, 1), inflight.find(many, 1)]).toEqual([done, undefined]);
    inflight.add(many, 1, done);
    inflight.release("many", 1);
    inflight.release("few", 1);
    expect([inflight.find(few, 1), inflight.find(many, 1)]).toEqual([undefined, undefined]);
  });

  it("a QoS 2 message is published once, however often the client repeats it, also after reconnecting", async () => {
    const server = await openMqttServer();
    const publish = packet(0x34, text("shared/x"), Buffer.from([0, 5]), Buffer.from("once"));
    for (const expected of ["20020000", "20020000"]) {
      const { socket, got } = await raw(server);
      socket.write(connectPacket("a", "desk", 0xc0));
      await waitFor(() => got().startsWith(expected), { what: "a CONNACK" });
      socket.write(publish);
      socket.write(Buffer.concat([Buffer.from([publish.readUInt8(0) | 8]), publish.subarray(1)]));
      // A PUBREC for each.
      await waitFor(() => got() === `${expected}5002000550020005`, { what: "two PUBRECs", diagnose: got });
      socket.destroy();
    }
    // The same client id of another identity is another session.
    const other = await raw(server);
    other.socket.write(connectPacket("b", "desk", 0xc2));
    await waitFor(() => other.got() === "20020000", { what: "a CONNACK" });
    const { socket, got } = await raw(server);
    socket.write(connectPacket("a", "desk", 0xc0));
    socket.write(Buffer.from([0x62, 2, 0, 5]));
    await waitFor(() => got() === "2002000070020005", { what: "a PUBCOMP", diagnose: got });
    socket.write(publish);
    await waitFor(() => got() === "200200007002000550020005", { what: "a PUBREC", diagnose: got });
    await server.bus.publish({ topic: "end", payload: Buffer.from("end") });
    const seen: string[] = [];
    for await (const { payload } of server.bus.subscribe({ filter: "#", after: "0", signal: over.signal })) {
      seen.push(Buffer.from(payload).toString());
      if (seen.at(-1) === "end") break;
    }
    expect(seen).toEqual(["once", "once", "end"]);
  });
});

describe("the size check of packets", () => {
  const limits = { publishBytes: 20_000, bytes: 100 };
  const whole = (type: number, length: number[], size: number) =>
    Buffer.from([type, ...length, ...Array(size).fill(0x3f)]);
  const [greeting, publish] = [whole(0x10, [100], 100), whole(0x33, [0xa0, 0x9c, 0x01], 20_000)];

  it("packet lengths are read wherever the stream is cut, and only a PUBLISH after the first packet may be large", () => {
    const stream = Buffer.concat([greeting, whole(0xc0, [0], 0), publish, whole(0x82, [100], 100)]);
    for (const size of [1, 2, 3, 7, 101, 5_000, stream.length]) {
      const fits = createPacketSizeCheck(limits);
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
      expect(createPacketSizeCheck(limits)(Buffer.from(beginning))).toBe(false);
    }
    expect(createPacketSizeCheck(limits)(Buffer.concat([greeting, Buffer.from([0x82, 101])]))).toBe(false);
  });
});
