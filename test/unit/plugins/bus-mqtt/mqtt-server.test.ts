import { describe, expect, it } from "vitest";
import type { BusMessage, MessageBus } from "../../../../core/index.js";
import { connectAs, openMqttServer } from "../../../helpers/mqtt-server.js";
import { waitFor } from "../../../helpers/wait-for.js";

const over = new AbortController();
const { signal } = over;

/** Reads the first `count` kept messages of the bus. */
async function readKept(bus: MessageBus, filter: string, count: number): Promise<BusMessage[]> {
  const seen: BusMessage[] = [];
  for await (const message of bus.subscribe({ filter, after: "0", signal })) {
    seen.push(message);
    if (seen.length === count) break;
  }
  return seen;
}

const publish = (bus: MessageBus, topic: string, text: string, keep = true) =>
  bus.publish({ topic, payload: Buffer.from(text), from: "operator" }, { keep });

describe("messages over MQTT", () => {
  it("messages of QoS 1 and 2 are kept by the bus, with their sender, before they are acknowledged", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a");
    await a.mqtt.publishAsync("shared/x", "one", { qos: 1 });
    await a.mqtt.publishAsync("shared/x", "two", { qos: 2 });
    const messages = await readKept(server.bus, "shared/x", 2);
    expect(messages.map(({ from, payload }) => [from, Buffer.from(payload).toString()])).toEqual([
      ["agent:a", "one"],
      ["agent:a", "two"],
    ]);
  });

  it("a message is acknowledged when the bus has stored it, and not at all when the bus rejects it", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a");
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const busPublish = server.bus.publish.bind(server.bus);
    server.bus.publish = async (...args) => {
      await held;
      return busPublish(...args);
    };
    let isAcked = false;
    const acked = a.mqtt.publishAsync("shared/x", "one", { qos: 1 }).then(() => {
      isAcked = true;
    });
    await a.mqtt.subscribeAsync("shared/y", { qos: 1 }); // a round trip later
    expect(isAcked).toBe(false);
    release();
    await acked;
    server.bus.publish = async () => {
      throw new Error("the disk is full");
    };
    const closed = a.closed();
    a.mqtt.publishAsync("shared/x", "two", { qos: 1 }).then(
      () => expect.unreachable(),
      () => {},
    );
    await closed;
  });

  it("messages of QoS 0 are delivered and not kept", async () => {
    const server = await openMqttServer();
    const [a, b] = [await connectAs(server, "a"), await connectAs(server, "b")];
    await b.mqtt.subscribeAsync("shared/#", { qos: 1 });
    await a.mqtt.publishAsync("shared/x", "passing", { qos: 0 });
    await a.mqtt.publishAsync("shared/x", "kept", { qos: 1 });
    await b.texts(2);
    expect(b.got.map(({ text, qos }) => [text, qos])).toEqual([
      ["passing", 0],
      ["kept", 1],
    ]);
    expect(await readKept(server.bus, "#", 1)).toMatchObject([
      { payload: Uint8Array.from(Buffer.from("kept")) },
    ]);
  });

  it("subscribers get each message of the bus once, in the bus's order, with at most the QoS of their subscription", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a");
    const b = await connectAs(server, "b");
    await a.mqtt.subscribeAsync("shared/+", { qos: 2 });
    await b.mqtt.subscribeAsync("shared/+", { qos: 0 });
    for (let index = 0; index < 50; index++) {
      if (index % 2 === 0) await publish(server.bus, "shared/x", String(index));
      else await a.mqtt.publishAsync("shared/x", String(index), { qos: 1 });
    }
    const wanted = Array.from({ length: 50 }, (_, index) => String(index));
    expect(await a.texts(50)).toEqual(wanted);
    expect(await b.texts(50)).toEqual(wanted);
    await publish(server.bus, "shared/end", "end");
    expect((await a.texts(51)).length).toBe(a.got.length);
    expect(new Set(a.got.map(({ qos }) => qos))).toEqual(new Set([1]));
    expect(new Set(b.got.map(({ qos }) => qos))).toEqual(new Set([0]));
  });

  it("messages that one client publishes at once keep their order while each is authorized", async () => {
    let first = true;
    const server = await openMqttServer({
      async mayPublish() {
        if (first) {
          first = false;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        return true;
      },
    });
    const a = await connectAs(server, "a");
    const wanted = Array.from({ length: 200 }, (_, index) => String(index));
    await Promise.all(wanted.map((text) => a.mqtt.publishAsync("shared/x", text, { qos: 1 })));
    const messages = await readKept(server.bus, "#", 200);
    expect(messages.map(({ payload }) => Buffer.from(payload).toString())).toEqual(wanted);
  });

  it("a publisher that has subscribed gets its own message once", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a");
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await a.mqtt.publishAsync("shared/x", "mine", { qos: 1 });
    await a.mqtt.publishAsync("shared/x", "end", { qos: 1 });
    expect(await a.texts(2)).toEqual(["mine", "end"]);
  });
});

describe("MQTT sessions", () => {
  const session = { clientId: "desk", clean: false };

  it("a persistent session gets the messages sent while its client was away, once each and in order", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", session);
    await a.mqtt.subscribeAsync("shared/#", { qos: 1 });
    await publish(server.bus, "shared/x", "0");
    await a.texts(1);
    await a.end();
    for (let index = 1; index < 100; index++) await publish(server.bus, "shared/x", String(index));
    await server.restart();
    const back = await connectAs(server, "a", session);
    expect(await back.texts(99)).toEqual(Array.from({ length: 99 }, (_, index) => String(index + 1)));
    await publish(server.bus, "shared/x", "last");
    await back.texts(100);
    expect(back.got.map(({ text }) => text).at(-1)).toBe("last");
    expect(back.got.filter(({ dup }) => dup)).toEqual([]);
  });

  it("a persistent session that never got a message misses nothing while its client is away", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", session);
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await a.end("abruptly");
    await publish(server.bus, "shared/x", "1");
    const back = await connectAs(server, "a", session);
    expect(await back.texts(1)).toEqual(["1"]);
  });

  it("an agent's first session gets what was sent to its inbox before, and nothing else from that time", async () => {
    const server = await openMqttServer();
    for (const topic of ["agents/a/inbox", "agents/a/other", "agents/b/inbox"])
      await publish(server.bus, topic, topic);
    const a = await connectAs(server, "a", session);
    await a.mqtt.subscribeAsync(["agents/a/inbox", "agents/a/other", "agents/b/inbox"], { qos: 1 });
    await publish(server.bus, "agents/a/other", "end");
    expect(new Set(await a.texts(2))).toEqual(new Set(["agents/a/inbox", "end"]));
    await a.end();
    const back = await connectAs(server, "a", session);
    await publish(server.bus, "agents/a/inbox", "news");
    expect(await back.texts(1)).toEqual(["news"]);
  });

  it("a session gets unacknowledged messages again, with DUP", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", session);
    a.mqtt.handleMessage = () => {}; // never acknowledges
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    for (const text of ["1", "2", "3"]) await publish(server.bus, "shared/x", text);
    await a.texts(1);
    await a.end("abruptly");
    const back = await connectAs(server, "a", session);
    expect(await back.texts(3)).toEqual(["1", "2", "3"]);
    expect(back.got[0]?.dup).toBe(true);
  });

  it("a clean session misses the messages sent while its client was away", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", { clientId: "desk", clean: true });
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await a.end();
    await publish(server.bus, "shared/x", "missed");
    const back = await connectAs(server, "a", { clientId: "desk", clean: true });
    await back.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await publish(server.bus, "shared/x", "seen");
    expect(await back.texts(1)).toEqual(["seen"]);
  });

  it("connecting with a clean session deletes the persistent session of the same client id", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", session);
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await a.end();
    await (await connectAs(server, "a", { ...session, clean: true })).end();
    await publish(server.bus, "shared/x", "missed");
    const back = await connectAs(server, "a", session);
    await back.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await publish(server.bus, "shared/x", "seen");
    expect(await back.texts(1)).toEqual(["seen"]);
  });

  it("a session gets nothing from a filter that it unsubscribed", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", session);
    await a.mqtt.subscribeAsync(["shared/x", "shared/y"], { qos: 1 });
    await a.mqtt.unsubscribeAsync("shared/x");
    await a.end();
    await publish(server.bus, "shared/x", "unwanted");
    await publish(server.bus, "shared/y", "wanted");
    const back = await connectAs(server, "a", session);
    expect(await back.texts(1)).toEqual(["wanted"]);
  });

  it("a client id takes over only a connection of the same identity", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", session);
    await a.mqtt.subscribeAsync("agents/a/inbox", { qos: 1 });
    const b = await connectAs(server, "b", session);
    await publish(server.bus, "agents/a/inbox", "for a");
    expect(await a.texts(1)).toEqual(["for a"]);
    const closed = a.closed();
    const again = await connectAs(server, "a", session);
    await closed;
    await publish(server.bus, "agents/a/inbox", "for a once more");
    expect(await again.texts(1)).toEqual(["for a once more"]);
    expect(b.got).toEqual([]);
    expect(b.mqtt.connected).toBe(true);
  });

  it("the ninth session of an identity replaces the one that was not used for the longest time", async () => {
    const server = await openMqttServer();
    for (let index = 0; index < 9; index++) {
      const a = await connectAs(server, "a", { clientId: `c${index}`, clean: false });
      await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
      await a.end();
    }
    await publish(server.bus, "shared/x", "1");
    const [first, second] = [
      await connectAs(server, "a", { clientId: "c0", clean: false }),
      await connectAs(server, "a", { clientId: "c1", clean: false }),
    ];
    expect(await second.texts(1)).toEqual(["1"]);
    expect(first.got).toEqual([]);
  });
});

describe("slow MQTT clients", () => {
  it.each([0, 1] as const)(
    "a slow client with QoS %d does not delay others, and its messages wait on the bus",
    async (qos) => {
      const server = await openMqttServer();
      const [slow, fast] = [await connectAs(server, "a"), await connectAs(server, "b")];
      await slow.mqtt.subscribeAsync("shared/x", { qos });
      await fast.mqtt.subscribeAsync("shared/x", { qos });
      slow.mqtt.stream.pause();
      const text = "x".repeat(200_000);
      let most = 0;
      for (let index = 0; index < 100; index++) {
        await publish(server.bus, "shared/x", text);
        await fast.texts(index + 1);
        most = Math.max(most, server.maxBufferedBytes());
      }
      // One message, and what a socket buffers before it reports back-pressure.
      expect(most).toBeGreaterThan(200_000);
      expect(most).toBeLessThan(500_000);
      slow.mqtt.stream.resume();
      await slow.texts(100);
    },
  );
});

describe("shared subscriptions", () => {
  it("a shared subscription distributes messages among MQTT clients and members on the bus", async () => {
    const server = await openMqttServer();
    const [a, b] = [await connectAs(server, "a"), await connectAs(server, "b")];
    for (const it of [a, b]) await it.mqtt.subscribeAsync("$share/jobs/shared/jobs", { qos: 1 });
    const taken: string[] = [];
    const end = new AbortController();
    const how = { filter: "shared/jobs", group: "jobs", ackWaitMs: 60_000, maxInFlight: 1 };
    const third = (async () => {
      for await (const { message, ack } of server.bus.consume({ ...how, signal: end.signal })) {
        taken.push(Buffer.from(message.payload).toString());
        // Keeps its first job until each of the others has had one.
        await waitFor(() => a.got.length > 0 && b.got.length > 0, { what: "a job for each" });
        await ack();
      }
    })();
    for (let index = 0; index < 60; index++) await publish(server.bus, "shared/jobs", String(index));
    const all = () => [...a.got, ...b.got].map(({ text }) => text).concat(taken);
    await waitFor(() => all().length >= 60, { what: "60 jobs taken", diagnose: all });
    expect(new Set(all()).size).toBe(60);
    expect(all().length).toBe(60);
    expect([a.got.length, b.got.length, taken.length].every((count) => count > 0)).toBe(true);
    end.abort();
    await third;
  });

  it("a message that a disconnected member has not acknowledged goes to another member", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a");
    a.mqtt.handleMessage = () => {}; // never acknowledges
    await a.mqtt.subscribeAsync("$share/jobs/shared/jobs", { qos: 1 });
    await publish(server.bus, "shared/jobs", "job");
    await a.texts(1);
    const b = await connectAs(server, "b");
    await b.mqtt.subscribeAsync("$share/jobs/shared/jobs", { qos: 1 });
    await a.end("abruptly");
    expect(await b.texts(1)).toEqual(["job"]);
  });
});

describe("retained MQTT messages", () => {
  it("a retained message is sent to every new subscriber, also after a restart, until an empty one removes it", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a");
    await a.mqtt.publishAsync("shared/status", "ready", { qos: 1, retain: true });
    await server.restart();
    const b = await connectAs(server, "b");
    await b.mqtt.subscribeAsync("shared/+", { qos: 1 });
    await b.texts(1);
    expect(b.got).toMatchObject([{ topic: "shared/status", text: "ready", retain: true, qos: 1 }]);
    await b.mqtt.publishAsync("shared/status", "", { qos: 1, retain: true });
    await b.texts(2);
    expect(b.got[1]).toMatchObject({ text: "", retain: false });
    const c = await connectAs(server, "c");
    await c.mqtt.subscribeAsync("shared/+", { qos: 1 });
    await publish(server.bus, "shared/end", "end");
    expect(await c.texts(1)).toEqual(["end"]);
  });

  it("a session that reconnects does not get retained messages again", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", { clientId: "desk", clean: false });
    await a.mqtt.publishAsync("shared/status", "ready", { qos: 1, retain: true });
    await a.mqtt.subscribeAsync("shared/#", { qos: 1 });
    await a.texts(1);
    await a.end();
    const back = await connectAs(server, "a", { clientId: "desk", clean: false });
    await publish(server.bus, "shared/end", "end");
    expect(await back.texts(1)).toEqual(["end"]);
  });

  it("a retained message above the limit of its identity closes the connection and is not published", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a");
    for (let index = 0; index < 256; index++) {
      await a.mqtt.publishAsync(`shared/${index}`, "x", { qos: 1, retain: true });
    }
    await a.mqtt.publishAsync("shared/1", "y", { qos: 1, retain: true });
    const closed = a.closed();
    a.mqtt.publish("shared/one-more", "x", { qos: 1, retain: true });
    await closed;
    const b = await connectAs(server, "b");
    await b.mqtt.publishAsync("shared/one-more", "b", { qos: 1, retain: true });
    expect(await readKept(server.bus, "shared/one-more", 1)).toMatchObject([{ from: "agent:b" }]);
  });
});

describe("dropping topics and ending runs", () => {
  it("dropping an agent's topics deletes its sessions and the messages retained there", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", { clientId: "desk", clean: false });
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await a.mqtt.publishAsync("agents/a/status", "ready", { qos: 1, retain: true });
    await a.mqtt.publishAsync("shared/status", "ready", { qos: 1, retain: true });
    const closed = a.closed();
    await server.bus.drop("agents/a/#");
    await server.mqtt.drop("agents/a/#");
    await closed;
    await publish(server.bus, "shared/x", "for the one before");
    const another = await connectAs(server, "a", { clientId: "desk", clean: false });
    await another.mqtt.subscribeAsync(["agents/#", "shared/status"], { qos: 1 });
    await publish(server.bus, "shared/status", "end");
    await another.texts(2);
    expect(another.got.map(({ topic, text }) => [topic, text])).toEqual([
      ["shared/status", "ready"],
      ["shared/status", "end"],
    ]);
  });

  it("the operator stays connected when topics are dropped, and gets later messages there", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "operator", { clientId: "desk", clean: false });
    await a.mqtt.subscribeAsync(["agents/b/status", "$share/jobs/agents/b/jobs"], { qos: 1 });
    await publish(server.bus, "agents/b/status", "1");
    await a.texts(1);
    for (const seen of [2, 4]) {
      await server.bus.drop("agents/b/#");
      await server.mqtt.drop("agents/b/#");
      await publish(server.bus, "agents/b/status", "status");
      await publish(server.bus, "agents/b/jobs", "job");
      expect(new Set((await a.texts(seen + 1)).slice(-2))).toEqual(new Set(["status", "job"]));
    }
    expect(a.mqtt.connected).toBe(true);
  });

  it("dropping an agent's topics disconnects agents that read them, but not the operator", async () => {
    const server = await openMqttServer();
    const [a, b] = [await connectAs(server, "a"), await connectAs(server, "b")];
    const operator = await connectAs(server, "operator");
    await a.mqtt.subscribeAsync(["shared/#", "agents/c/inbox"], { qos: 0 });
    await b.mqtt.subscribeAsync(["shared/#", "agents/cc/inbox"], { qos: 1 });
    await operator.mqtt.subscribeAsync("agents/c/#", { qos: 1 });
    const closed = a.closed();
    await server.mqtt.drop("agents/c/#");
    await publish(server.bus, "agents/c/inbox", "for the one after");
    await closed;
    expect(await operator.texts(1)).toEqual(["for the one after"]);
    expect([a.got, b.mqtt.connected]).toEqual([[], true]);
  });

  it("the end of a run closes its connections and publishes their wills", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", {
      will: { topic: "shared/gone", payload: Buffer.from("a"), qos: 1, retain: false },
    });
    const b = await connectAs(server, "b");
    await b.mqtt.subscribeAsync("shared/gone", { qos: 1 });
    const closed = a.closed();
    server.mqtt.endRuns((runId) => runId === "run-a");
    await closed;
    expect(await b.texts(1)).toEqual(["a"]);
    expect(await readKept(server.bus, "shared/gone", 1)).toMatchObject([{ from: "agent:a" }]);
    expect(b.mqtt.connected).toBe(true);
  });

  it("a will is not published after a DISCONNECT", async () => {
    const server = await openMqttServer();
    const a = await connectAs(server, "a", {
      will: { topic: "shared/gone", payload: Buffer.from("a"), qos: 1, retain: false },
    });
    const b = await connectAs(server, "b");
    await b.mqtt.subscribeAsync("shared/#", { qos: 1 });
    await a.end();
    await b.mqtt.publishAsync("shared/end", "end", { qos: 1 });
    expect(await b.texts(1)).toEqual(["end"]);
  });
});
