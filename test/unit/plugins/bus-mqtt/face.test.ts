import { describe, expect, it } from "vitest";
import type { BusMessage, MessageBus } from "../../../../core/index.js";
import { enter, openFace } from "../../../helpers/mqtt-face.js";
import { waitFor } from "../../../helpers/wait-for.js";

const over = new AbortController();
const { signal } = over;

/** What the bus keeps, from its beginning. */
async function kept(bus: MessageBus, filter: string, count: number): Promise<BusMessage[]> {
  const seen: BusMessage[] = [];
  for await (const message of bus.subscribe({ filter, after: "0", signal })) {
    seen.push(message);
    if (seen.length === count) break;
  }
  return seen;
}

const say = (bus: MessageBus, topic: string, text: string, keep = true) =>
  bus.publish({ topic, payload: Buffer.from(text), from: "operator" }, { keep });

describe("messages", () => {
  it("of QoS 1 and 2 are kept by the bus with their sender before they are acknowledged", async () => {
    const face = await openFace();
    const a = await enter(face, "a");
    await a.mqtt.publishAsync("shared/x", "one", { qos: 1 });
    await a.mqtt.publishAsync("shared/x", "two", { qos: 2 });
    const messages = await kept(face.bus, "shared/x", 2);
    expect(messages.map(({ from, payload }) => [from, Buffer.from(payload).toString()])).toEqual([
      ["agent:a", "one"],
      ["agent:a", "two"],
    ]);
  });

  it("are acknowledged only when the bus has them, and not at all when it does not take them", async () => {
    const face = await openFace();
    const a = await enter(face, "a");
    let letGo = () => {};
    const held = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const publish = face.bus.publish.bind(face.bus);
    face.bus.publish = async (...args) => {
      await held;
      return publish(...args);
    };
    let isAcked = false;
    const acked = a.mqtt.publishAsync("shared/x", "one", { qos: 1 }).then(() => {
      isAcked = true;
    });
    await a.mqtt.subscribeAsync("shared/y", { qos: 1 }); // a round trip later
    expect(isAcked).toBe(false);
    letGo();
    await acked;
    face.bus.publish = async () => {
      throw new Error("the disk is full");
    };
    const closed = a.closed();
    a.mqtt.publishAsync("shared/x", "two", { qos: 1 }).then(
      () => expect.unreachable(),
      () => {},
    );
    await closed;
  });

  it("of QoS 0 pass, and are not kept", async () => {
    const face = await openFace();
    const [a, b] = [await enter(face, "a"), await enter(face, "b")];
    await b.mqtt.subscribeAsync("shared/#", { qos: 1 });
    await a.mqtt.publishAsync("shared/x", "passing", { qos: 0 });
    await a.mqtt.publishAsync("shared/x", "kept", { qos: 1 });
    await b.texts(2);
    expect(b.got.map(({ text, qos }) => [text, qos])).toEqual([
      ["passing", 0],
      ["kept", 1],
    ]);
    expect(await kept(face.bus, "#", 1)).toMatchObject([{ payload: Uint8Array.from(Buffer.from("kept")) }]);
  });

  it("of others on the bus reach subscribers once each, in the bus's order, with no more than their QoS", async () => {
    const face = await openFace();
    const a = await enter(face, "a");
    const b = await enter(face, "b");
    await a.mqtt.subscribeAsync("shared/+", { qos: 2 });
    await b.mqtt.subscribeAsync("shared/+", { qos: 0 });
    for (let index = 0; index < 50; index++) {
      if (index % 2 === 0) await say(face.bus, "shared/x", String(index));
      else await a.mqtt.publishAsync("shared/x", String(index), { qos: 1 });
    }
    const wanted = Array.from({ length: 50 }, (_, index) => String(index));
    expect(await a.texts(50)).toEqual(wanted);
    expect(await b.texts(50)).toEqual(wanted);
    await say(face.bus, "shared/end", "end");
    expect((await a.texts(51)).length).toBe(a.got.length);
    expect(new Set(a.got.map(({ qos }) => qos))).toEqual(new Set([1]));
    expect(new Set(b.got.map(({ qos }) => qos))).toEqual(new Set([0]));
  });

  it("published at once by one client keep their order, whatever is asked about each", async () => {
    let first = true;
    const face = await openFace({
      async mayPublish() {
        if (first) {
          first = false;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        return true;
      },
    });
    const a = await enter(face, "a");
    const wanted = Array.from({ length: 200 }, (_, index) => String(index));
    await Promise.all(wanted.map((text) => a.mqtt.publishAsync("shared/x", text, { qos: 1 })));
    const messages = await kept(face.bus, "#", 200);
    expect(messages.map(({ payload }) => Buffer.from(payload).toString())).toEqual(wanted);
  });

  it("come to their own publisher too, once", async () => {
    const face = await openFace();
    const a = await enter(face, "a");
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await a.mqtt.publishAsync("shared/x", "mine", { qos: 1 });
    await a.mqtt.publishAsync("shared/x", "end", { qos: 1 });
    expect(await a.texts(2)).toEqual(["mine", "end"]);
  });
});

describe("sessions", () => {
  const session = { clientId: "desk", clean: false };

  it("that are kept get what came while their client was away, once, in order", async () => {
    const face = await openFace();
    const a = await enter(face, "a", session);
    await a.mqtt.subscribeAsync("shared/#", { qos: 1 });
    await say(face.bus, "shared/x", "0");
    await a.texts(1);
    await a.end();
    for (let index = 1; index < 100; index++) await say(face.bus, "shared/x", String(index));
    await face.restart();
    const back = await enter(face, "a", session);
    expect(await back.texts(99)).toEqual(Array.from({ length: 99 }, (_, index) => String(index + 1)));
    await say(face.bus, "shared/x", "last");
    await back.texts(100);
    expect(back.got.map(({ text }) => text).at(-1)).toBe("last");
    expect(back.got.filter(({ dup }) => dup)).toEqual([]);
  });

  it("that have never got a message miss nothing of what comes while their client is away", async () => {
    const face = await openFace();
    const a = await enter(face, "a", session);
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await a.end("abruptly");
    await say(face.bus, "shared/x", "1");
    const back = await enter(face, "a", session);
    expect(await back.texts(1)).toEqual(["1"]);
  });

  it("of an agent get what was sent to its inbox before it first came, and nothing else of that time", async () => {
    const face = await openFace();
    for (const topic of ["agents/a/inbox", "agents/a/other", "agents/b/inbox"])
      await say(face.bus, topic, topic);
    const a = await enter(face, "a", session);
    await a.mqtt.subscribeAsync(["agents/a/inbox", "agents/a/other", "agents/b/inbox"], { qos: 1 });
    await say(face.bus, "agents/a/other", "end");
    expect(new Set(await a.texts(2))).toEqual(new Set(["agents/a/inbox", "end"]));
    await a.end();
    const back = await enter(face, "a", session);
    await say(face.bus, "agents/a/inbox", "news");
    expect(await back.texts(1)).toEqual(["news"]);
  });

  it("get what was not acknowledged again, with DUP", async () => {
    const face = await openFace();
    const a = await enter(face, "a", session);
    a.mqtt.handleMessage = () => {}; // never acknowledges
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    for (const text of ["1", "2", "3"]) await say(face.bus, "shared/x", text);
    await a.texts(1);
    await a.end("abruptly");
    const back = await enter(face, "a", session);
    expect(await back.texts(3)).toEqual(["1", "2", "3"]);
    expect(back.got[0]?.dup).toBe(true);
  });

  it("that are clean miss what came while their client was away", async () => {
    const face = await openFace();
    const a = await enter(face, "a", { clientId: "desk", clean: true });
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await a.end();
    await say(face.bus, "shared/x", "missed");
    const back = await enter(face, "a", { clientId: "desk", clean: true });
    await back.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await say(face.bus, "shared/x", "seen");
    expect(await back.texts(1)).toEqual(["seen"]);
  });

  it("begin anew for a client that asks for a clean one, and what they kept is forgotten", async () => {
    const face = await openFace();
    const a = await enter(face, "a", session);
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await a.end();
    await (await enter(face, "a", { ...session, clean: true })).end();
    await say(face.bus, "shared/x", "missed");
    const back = await enter(face, "a", session);
    await back.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await say(face.bus, "shared/x", "seen");
    expect(await back.texts(1)).toEqual(["seen"]);
  });

  it("get nothing more of what was unsubscribed", async () => {
    const face = await openFace();
    const a = await enter(face, "a", session);
    await a.mqtt.subscribeAsync(["shared/x", "shared/y"], { qos: 1 });
    await a.mqtt.unsubscribeAsync("shared/x");
    await a.end();
    await say(face.bus, "shared/x", "unwanted");
    await say(face.bus, "shared/y", "wanted");
    const back = await enter(face, "a", session);
    expect(await back.texts(1)).toEqual(["wanted"]);
  });

  it("are each identity's own: the same client id takes over only one's own connection", async () => {
    const face = await openFace();
    const a = await enter(face, "a", session);
    await a.mqtt.subscribeAsync("agents/a/inbox", { qos: 1 });
    const b = await enter(face, "b", session);
    await say(face.bus, "agents/a/inbox", "for a");
    expect(await a.texts(1)).toEqual(["for a"]);
    const closed = a.closed();
    const again = await enter(face, "a", session);
    await closed;
    await say(face.bus, "agents/a/inbox", "for a once more");
    expect(await again.texts(1)).toEqual(["for a once more"]);
    expect(b.got).toEqual([]);
    expect(b.mqtt.connected).toBe(true);
  });

  it("of one identity are bounded; the one that was away for longest goes", async () => {
    const face = await openFace();
    for (let index = 0; index < 9; index++) {
      const a = await enter(face, "a", { clientId: `c${index}`, clean: false });
      await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
      await a.end();
    }
    await say(face.bus, "shared/x", "1");
    const [first, second] = [
      await enter(face, "a", { clientId: "c0", clean: false }),
      await enter(face, "a", { clientId: "c1", clean: false }),
    ];
    expect(await second.texts(1)).toEqual(["1"]);
    expect(first.got).toEqual([]);
  });
});

describe("slow clients", () => {
  it.each([0, 1] as const)(
    "of QoS %d do not hold up others, and what waits for them waits on the bus",
    async (qos) => {
      const face = await openFace();
      const [slow, fast] = [await enter(face, "a"), await enter(face, "b")];
      await slow.mqtt.subscribeAsync("shared/x", { qos });
      await fast.mqtt.subscribeAsync("shared/x", { qos });
      slow.mqtt.stream.pause();
      const text = "x".repeat(200_000);
      let most = 0;
      for (let index = 0; index < 100; index++) {
        await say(face.bus, "shared/x", text);
        await fast.texts(index + 1);
        most = Math.max(most, face.waiting());
      }
      // One message, and what a socket takes before it says that it is enough.
      expect(most).toBeGreaterThan(200_000);
      expect(most).toBeLessThan(500_000);
      slow.mqtt.stream.resume();
      await slow.texts(100);
    },
  );
});

describe("groups", () => {
  it("share messages between clients, and with members that are not of MQTT", async () => {
    const face = await openFace();
    const [a, b] = [await enter(face, "a"), await enter(face, "b")];
    for (const it of [a, b]) await it.mqtt.subscribeAsync("$share/jobs/shared/jobs", { qos: 1 });
    const taken: string[] = [];
    const end = new AbortController();
    const how = { filter: "shared/jobs", group: "jobs", ackWaitMs: 60_000, maxInFlight: 1 };
    const third = (async () => {
      for await (const { message, ack } of face.bus.consume({ ...how, signal: end.signal })) {
        taken.push(Buffer.from(message.payload).toString());
        // Busy with its first one until the others have each had one.
        await waitFor(() => a.got.length > 0 && b.got.length > 0, { what: "a job for each" });
        await ack();
      }
    })();
    for (let index = 0; index < 60; index++) await say(face.bus, "shared/jobs", String(index));
    const all = () => [...a.got, ...b.got].map(({ text }) => text).concat(taken);
    await waitFor(() => all().length >= 60, { what: "60 jobs taken", diagnose: all });
    expect(new Set(all()).size).toBe(60);
    expect(all().length).toBe(60);
    expect([a.got.length, b.got.length, taken.length].every((count) => count > 0)).toBe(true);
    end.abort();
    await third;
  });

  it("give what a member has not acknowledged to another when it goes", async () => {
    const face = await openFace();
    const a = await enter(face, "a");
    a.mqtt.handleMessage = () => {}; // never acknowledges
    await a.mqtt.subscribeAsync("$share/jobs/shared/jobs", { qos: 1 });
    await say(face.bus, "shared/jobs", "job");
    await a.texts(1);
    const b = await enter(face, "b");
    await b.mqtt.subscribeAsync("$share/jobs/shared/jobs", { qos: 1 });
    await a.end("abruptly");
    expect(await b.texts(1)).toEqual(["job"]);
  });
});

describe("retained messages", () => {
  it("are shown to whoever subscribes, over a restart, until one without a payload", async () => {
    const face = await openFace();
    const a = await enter(face, "a");
    await a.mqtt.publishAsync("shared/status", "ready", { qos: 1, retain: true });
    await face.restart();
    const b = await enter(face, "b");
    await b.mqtt.subscribeAsync("shared/+", { qos: 1 });
    await b.texts(1);
    expect(b.got).toMatchObject([{ topic: "shared/status", text: "ready", retain: true, qos: 1 }]);
    await b.mqtt.publishAsync("shared/status", "", { qos: 1, retain: true });
    await b.texts(2);
    expect(b.got[1]).toMatchObject({ text: "", retain: false });
    const c = await enter(face, "c");
    await c.mqtt.subscribeAsync("shared/+", { qos: 1 });
    await say(face.bus, "shared/end", "end");
    expect(await c.texts(1)).toEqual(["end"]);
  });

  it("are not shown again to a session that comes back", async () => {
    const face = await openFace();
    const a = await enter(face, "a", { clientId: "desk", clean: false });
    await a.mqtt.publishAsync("shared/status", "ready", { qos: 1, retain: true });
    await a.mqtt.subscribeAsync("shared/#", { qos: 1 });
    await a.texts(1);
    await a.end();
    const back = await enter(face, "a", { clientId: "desk", clean: false });
    await say(face.bus, "shared/end", "end");
    expect(await back.texts(1)).toEqual(["end"]);
  });

  it("are bounded for each identity: one too many ends the connection and is not published", async () => {
    const face = await openFace();
    const a = await enter(face, "a");
    for (let index = 0; index < 256; index++) {
      await a.mqtt.publishAsync(`shared/${index}`, "x", { qos: 1, retain: true });
    }
    await a.mqtt.publishAsync("shared/1", "y", { qos: 1, retain: true });
    const closed = a.closed();
    a.mqtt.publish("shared/one-more", "x", { qos: 1, retain: true });
    await closed;
    const b = await enter(face, "b");
    await b.mqtt.publishAsync("shared/one-more", "b", { qos: 1, retain: true });
    expect(await kept(face.bus, "shared/one-more", 1)).toMatchObject([{ from: "agent:b" }]);
  });
});

describe("what the daemon drops", () => {
  it("is gone with an agent: its sessions, and what is retained under its topics", async () => {
    const face = await openFace();
    const a = await enter(face, "a", { clientId: "desk", clean: false });
    await a.mqtt.subscribeAsync("shared/x", { qos: 1 });
    await a.mqtt.publishAsync("agents/a/status", "ready", { qos: 1, retain: true });
    await a.mqtt.publishAsync("shared/status", "ready", { qos: 1, retain: true });
    const closed = a.closed();
    await face.bus.drop("agents/a/#");
    await face.face.drop("agents/a/#");
    await closed;
    await say(face.bus, "shared/x", "for the one before");
    const another = await enter(face, "a", { clientId: "desk", clean: false });
    await another.mqtt.subscribeAsync(["agents/#", "shared/status"], { qos: 1 });
    await say(face.bus, "shared/status", "end");
    await another.texts(2);
    expect(another.got.map(({ topic, text }) => [topic, text])).toEqual([
      ["shared/status", "ready"],
      ["shared/status", "end"],
    ]);
  });

  it("leaves the operator connected, who goes on with what comes under those topics", async () => {
    const face = await openFace();
    const a = await enter(face, "operator", { clientId: "desk", clean: false });
    await a.mqtt.subscribeAsync(["agents/b/status", "$share/jobs/agents/b/jobs"], { qos: 1 });
    await say(face.bus, "agents/b/status", "1");
    await a.texts(1);
    for (const seen of [2, 4]) {
      await face.bus.drop("agents/b/#");
      await face.face.drop("agents/b/#");
      await say(face.bus, "agents/b/status", "status");
      await say(face.bus, "agents/b/jobs", "job");
      expect(new Set((await a.texts(seen + 1)).slice(-2))).toEqual(new Set(["status", "job"]));
    }
    expect(a.mqtt.connected).toBe(true);
  });

  it("is read no further by agents that read topics of it, who are asked again, and by the operator it is", async () => {
    const face = await openFace();
    const [a, b] = [await enter(face, "a"), await enter(face, "b")];
    const operator = await enter(face, "operator");
    await a.mqtt.subscribeAsync(["shared/#", "agents/c/inbox"], { qos: 0 });
    await b.mqtt.subscribeAsync(["shared/#", "agents/cc/inbox"], { qos: 1 });
    await operator.mqtt.subscribeAsync("agents/c/#", { qos: 1 });
    const closed = a.closed();
    await face.face.drop("agents/c/#");
    await say(face.bus, "agents/c/inbox", "for the one after");
    await closed;
    expect(await operator.texts(1)).toEqual(["for the one after"]);
    expect([a.got, b.mqtt.connected]).toEqual([[], true]);
  });

  it("ends the connections of a run that is over, and its will is published", async () => {
    const face = await openFace();
    const a = await enter(face, "a", {
      will: { topic: "shared/gone", payload: Buffer.from("a"), qos: 1, retain: false },
    });
    const b = await enter(face, "b");
    await b.mqtt.subscribeAsync("shared/gone", { qos: 1 });
    const closed = a.closed();
    face.face.endRuns((runId) => runId === "run-a");
    await closed;
    expect(await b.texts(1)).toEqual(["a"]);
    expect(await kept(face.bus, "shared/gone", 1)).toMatchObject([{ from: "agent:a" }]);
    expect(b.mqtt.connected).toBe(true);
  });

  it("a will is not published after a DISCONNECT", async () => {
    const face = await openFace();
    const a = await enter(face, "a", {
      will: { topic: "shared/gone", payload: Buffer.from("a"), qos: 1, retain: false },
    });
    const b = await enter(face, "b");
    await b.mqtt.subscribeAsync("shared/#", { qos: 1 });
    await a.end();
    await b.mqtt.publishAsync("shared/end", "end", { qos: 1 });
    expect(await b.texts(1)).toEqual(["end"]);
  });
});
