import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { authenticator, definePlugin, type MessageBus, messageBus } from "../../../../core/index.js";
import authenticatorTokens from "../../../../plugins/authenticator-tokens/index.js";
import authorizerTree from "../../../../plugins/authorizer-tree/index.js";
import busMemory from "../../../../plugins/bus-memory/index.js";
import httpApi from "../../../../plugins/http-api/index.js";
import operationBus from "../../../../plugins/operation-bus/index.js";
import { createTestKernel } from "../../../contract/index.js";
import { type Api, follow, startApi, tidy } from "../../../helpers/http-api.js";
import { readEvents } from "../../../helpers/read-events.js";
import { waitFor } from "../../../helpers/wait-for.js";

const operator = { actor: "operator", reason: "a test" };
const agents = [
  { id: "top" },
  { id: "lead", parent: "top", children: { max: 9, depth: 3 } },
  { id: "sibling", parent: "top" },
  { id: "child", parent: "lead" },
  { id: "stranger" },
];

let api: Api;
beforeEach(async () => {
  const plugins = [
    busMemory(),
    operationBus(),
    authenticatorTokens(),
    authorizerTree(),
    httpApi({ port: 0 }),
  ];
  api = await startApi([], {}, { plugins, agents });
});
afterEach(tidy);

interface Message {
  position?: string;
  topic: string;
  payload?: unknown;
  payload_base64?: string;
  from?: string;
  reply_to?: string;
  ack: string;
  attempt: number;
}

const tokenOf = (agentId: string) =>
  api.host.use(authenticator).mint({ agentId, runId: `run-of-${agentId}` });
const as = (token: string, method: string, path: string, body?: unknown) =>
  api.ask({ method, path, token, ...(body === undefined ? {} : { body }) });
const publish = (topic: string, payload: unknown, more = {}, token = api.token) =>
  as(token, "POST", `/bus/${topic}`, { payload, ...more });

/** An open stream of messages. Subscribed when this resolves. */
async function listen(path: string, token = api.token) {
  const stream = await follow(api.port, token, `/bus/${path}`);
  expect(stream.response.statusCode).toBe(200);
  const all = () =>
    [...stream.text().matchAll(/^data: (.*)$/gm)].map((it) => JSON.parse(it[1] ?? "") as Message);
  return {
    ...stream,
    all,
    async until(count: number): Promise<Message[]> {
      await waitFor(() => all().length >= count, { what: `${count} messages of ${path}` });
      return all();
    },
    close: () => stream.response.destroy(),
  };
}

describe("messages over HTTP", () => {
  it("go from the one who publishes to those who subscribe", async () => {
    const inbox = await listen("agents/lead/%23", tokenOf("lead"));
    const all = await listen("%23");
    const sent = await publish("agents/lead/inbox", { do: ["this", null] }, {}, tokenOf("top"));
    expect([sent.status, sent.json]).toEqual([
      200,
      { topic: "agents/lead/inbox", position: expect.any(String) },
    ]);
    const [message] = await inbox.until(1);
    expect(message).toEqual({
      position: sent.json["position"],
      topic: "agents/lead/inbox",
      payload: { do: ["this", null] },
      at: expect.any(String),
      from: "agent:top",
    });
    await publish("shared/%C3%A9%20b", "for others", { reply_to: "shared/answers" });
    expect(await all.until(2)).toMatchObject([
      { topic: "agents/lead/inbox" },
      { topic: "shared/é b", from: "operator", reply_to: "shared/answers" },
    ]);
    expect(inbox.all()).toHaveLength(1);
  });

  it("resume where they broke, and begin at the oldest with 0", async () => {
    for (const n of [1, 2, 3]) await publish("shared/t", n);
    const first = await readEvents({
      at: api.port,
      token: api.token,
      path: "/bus/shared/+",
      lastEventId: 0,
      until: (events) => events.length === 2,
    });
    expect(first).toMatchObject([{ event: "message", data: { payload: 1 } }, { data: { payload: 2 } }]);
    const again = readEvents({
      at: api.port,
      token: api.token,
      path: "/bus/shared/+?after=0",
      lastEventId: first[1]?.id ?? 0,
      until: (events) => events.length === 2,
    });
    await publish("shared/t", 4);
    expect(await again).toMatchObject([{ data: { payload: 3 } }, { data: { payload: 4 } }]);
    const wrong = await as(api.token, "GET", "/bus/shared/+?after=yesterday");
    expect([wrong.status, wrong.json["code"]]).toEqual([400, "input_invalid"]);
  });

  it("that are not kept have no position, and bytes that are no JSON come as base64", async () => {
    const stream = await listen("shared/t");
    expect((await publish("shared/t", 1, { keep: false })).json).toEqual({ topic: "shared/t" });
    await api.host.use(messageBus).publish({ topic: "shared/t", payload: Uint8Array.from([0xff, 0x31]) });
    const [first, second] = await stream.until(2);
    expect(first).not.toHaveProperty("position");
    expect(second).toMatchObject({ payload_base64: "/zE=" });
    expect(second).not.toHaveProperty("payload");
  });

  it("are answered to the one who waits for the reply", async () => {
    const inbox = await listen("agents/child/inbox", tokenOf("child"));
    const asked = publish("agents/child/inbox", "how many?", { wait_for_reply: true }, tokenOf("lead"));
    const [question] = await inbox.until(1);
    expect(question).toMatchObject({ payload: "how many?", from: "agent:lead" });
    const reply_to = question?.reply_to ?? "";
    expect(reply_to).toMatch(/^_reply\/[0-9a-f-]{36}$/);
    const answered = await publish(reply_to, 12, {}, tokenOf("child"));
    // For the one who waits, and for nobody later.
    expect(answered.json).toEqual({ topic: reply_to });
    const { status, json } = await asked;
    expect([status, json]).toEqual([
      200,
      {
        topic: "agents/child/inbox",
        position: question?.position,
        reply: { topic: reply_to, payload: 12, from: "agent:child", at: expect.any(String) },
      },
    ]);
    expect((await as(tokenOf("stranger"), "GET", "/bus/_reply/%23")).status).toBe(403);
  });

  it("that nobody answers are a timeout, and were published", async () => {
    const { status, json } = await publish("shared/t", 1, { wait_for_reply: true, timeout: "50ms" });
    expect([status, json["code"]]).toEqual([504, "timeout"]);
    const stream = await listen("shared/t?after=0");
    expect(await stream.until(1)).toMatchObject([{ position: json["position"], payload: 1 }]);
  });

  it.each<[string, string, string, unknown, string]>([
    ["a topic with a wildcard", "POST", "/bus/shared/+", { payload: 1 }, "topic"],
    ["a topic with an empty level", "POST", "/bus/shared//a", { payload: 1 }, "topic"],
    ["a topic that is too long", "POST", `/bus/shared/${"%C3%A9".repeat(125)}`, { payload: 1 }, "topic"],
    ["a topic of too many levels", "POST", `/bus/shared${"/a".repeat(16)}`, { payload: 1 }, "topic"],
    ["a topic with a control character", "POST", "/bus/shared/a%0Ab", { payload: 1 }, "topic"],
    ["no payload", "POST", "/bus/shared/t", {}, "payload"],
    ["a payload that is too large", "POST", "/bus/shared/t", { payload: "x".repeat(2 ** 20) }, "payload"],
    [
      "two topics to reply to",
      "POST",
      "/bus/shared/t",
      { payload: 1, reply_to: "shared/r", wait_for_reply: true },
      "reply_to",
    ],
    ["a wildcard to reply to", "POST", "/bus/shared/t", { payload: 1, reply_to: "shared/+" }, "reply_to"],
    ["a time that is too long", "POST", "/bus/shared/t", { payload: 1, timeout: "1h" }, "timeout"],
    ["an unknown field", "POST", "/bus/shared/t", { payload: 1, kep: true }, "kep"],
    ["a wildcard in a level", "GET", "/bus/shared/a+", undefined, "filter"],
    ["a wildcard in the middle", "GET", "/bus/shared/%23/a", undefined, "filter"],
    ["a group's odd name", "GET", "/bus/shared/t?group=a/b", undefined, "group"],
    ["too many at once", "GET", "/bus/shared/t?group=g&max_in_flight=0", undefined, "max_in_flight"],
    ["no token", "POST", "/bus-ack", {}, "ack"],
    ["two tokens", "POST", "/bus-ack", { ack: "a", nack: "b" }, "ack"],
  ])("%s that cannot be used is refused by name", async (_, method, path, body, field) => {
    const { status, json } = await as(api.token, method, path, body);
    expect([status, json["code"], json["detail"]]).toEqual([
      400,
      "input_invalid",
      expect.stringContaining(field),
    ]);
  });
});

describe("groups over HTTP", () => {
  it("give each message to one member until it is settled", async () => {
    const one = await listen("shared/jobs?group=g&after=0");
    for (const n of [1, 2, 3]) await publish("shared/jobs", n);
    const [first] = await one.until(1);
    expect(first).toMatchObject({ payload: 1, attempt: 1, ack: expect.any(String) });
    const two = await listen("shared/jobs?group=g");
    const [second] = await two.until(1);
    expect(second).toMatchObject({ payload: 2, attempt: 1 });
    const settle = (body: object) => as(api.token, "POST", "/bus-ack", body);
    for (let twice = 0; twice < 2; twice++) {
      expect((await settle({ ack: first?.ack })).json).toEqual({ settled: true });
    }
    expect((await one.until(2))[1]).toMatchObject({ payload: 3 });
    expect((await settle({ nack: second?.ack })).json).toEqual({ settled: true });
    expect((await two.until(2))[1]).toMatchObject({ payload: 2, attempt: 2 });
    // What a member that goes has not settled is another's.
    await settle({ ack: one.all()[1]?.ack });
    two.close();
    const taken = (await one.until(3))[2];
    expect(taken).toMatchObject({ payload: 2, attempt: 3 });
    const late = await settle({ ack: two.all()[1]?.ack });
    expect([late.status, late.json["code"]]).toEqual([409, "delivery_is_over"]);
  });

  it("are settled by the one who got the message, and by nobody else", async () => {
    const stream = await listen("shared/jobs?group=g", tokenOf("lead"));
    await publish("shared/jobs", 1);
    const [message] = await stream.until(1);
    const foreign = await as(tokenOf("child"), "POST", "/bus-ack", { ack: message?.ack });
    expect([foreign.status, foreign.json["code"]]).toEqual([409, "delivery_is_over"]);
    expect((await as(tokenOf("lead"), "POST", "/bus-ack", { ack: message?.ack })).status).toBe(200);
  });

  it("deliver again what was not settled in time", async () => {
    const stream = await listen("shared/jobs?group=g&ack_wait=1s");
    await publish("shared/jobs", 1);
    const [first, second] = await stream.until(2);
    expect([first?.attempt, second?.attempt]).toEqual([1, 2]);
    expect((await as(api.token, "POST", "/bus-ack", { ack: first?.ack })).status).toBe(409);
    expect((await as(api.token, "POST", "/bus-ack", { ack: second?.ack })).status).toBe(200);
  });

  it("are forgotten on demand", async () => {
    const stream = await listen("shared/jobs?group=g");
    const forgotten = await as(api.token, "DELETE", "/bus/shared/jobs?group=g");
    expect(forgotten.json).toEqual({ filter: "shared/jobs", group: "g", forgotten: true });
    await waitFor(() => stream.ended(), { what: "the end of the stream" });
  });
});

describe("what an agent may reach", () => {
  it.each([
    ["shared", 200],
    ["shared/%23", 200],
    ["agents/lead/%23", 200],
    ["agents/child/+", 200],
    ["openstarry/events/+/lead", 200],
    ["openstarry/events/agent.exited/child", 200],
    ["openstarry/presence/child", 200],
    ["openstarry/presence/top", 200],
    ["openstarry/presence/sibling", 200],
    ["agents/top/inbox", 403],
    ["agents/sibling/inbox", 403],
    ["agents/stranger/inbox", 403],
    ["agents/nobody/inbox", 403],
    ["agents/+/inbox", 403],
    ["agents/%23", 403],
    ["agents", 403],
    ["+/lead", 403],
    ["+/%23", 403],
    ["%23", 403],
    ["sharedx/a", 403],
    ["_reply/%23", 403],
    ["openstarry/%23", 403],
    ["openstarry/events/%23", 403],
    ["openstarry/events/+/+", 403],
    ["openstarry/events/+/%23", 403],
    ["openstarry/events/daemon.ready", 403],
    ["openstarry/events/+/sibling", 403],
    ["openstarry/presence/+", 403],
    ["openstarry/presence/stranger", 403],
    ["openstarry/presence/sibling/%23", 403],
    ["operators/own", 403],
  ])("subscribing to %s: %i", async (filter, expected) => {
    const { response } = await follow(api.port, tokenOf("lead"), `/bus/${filter}`);
    expect(response.statusCode).toBe(expected);
    const forget = await as(tokenOf("lead"), "DELETE", `/bus/${filter}?group=g`);
    expect(forget.status).toBe(expected);
    if (expected === 403) expect(forget.json["hint"]).toContain("agents/lead/#");
  });

  it.each([
    ["shared/t", 200],
    ["agents/lead/status", 200],
    ["agents/lead/inbox", 200],
    ["agents/child/inbox", 200],
    ["agents/top/inbox", 200],
    ["agents/sibling/inbox", 200],
    ["_reply/1", 200],
    ["agents/child/status", 403],
    ["agents/child/inbox/x", 403],
    ["agents/top/x", 403],
    ["agents/stranger/inbox", 403],
    ["agents/nobody/inbox", 403],
    ["agents", 403],
    ["openstarry/events/agent.exited/lead", 403],
    ["openstarry/presence/lead", 403],
    ["operators/own", 403],
  ])("publishing to %s: %i", async (topic, expected) => {
    const all = await listen("%23");
    const { status, json } = await publish(topic, 1, {}, tokenOf("lead"));
    expect(status).toBe(expected);
    await publish("operators/end", 1);
    const [first] = await all.until(1);
    expect(first?.topic).toBe(expected === 200 ? topic : "operators/end");
    if (expected === 403)
      expect(json).toMatchObject({ code: "forbidden", hint: expect.stringContaining("inbox") });
  });

  it("agents without a parent are no siblings, and nobody speaks for the daemon", async () => {
    expect((await publish("agents/top/inbox", 1, {}, tokenOf("stranger"))).status).toBe(403);
    const asOperator = await publish("openstarry/events/agent.exited/lead", 1);
    expect([asOperator.status, asOperator.json["code"]]).toEqual([403, "forbidden"]);
  });

  it("who reads an agent's topics gets nothing of a later agent of that id", async () => {
    const stream = await listen("agents/child/%23", tokenOf("lead"));
    await publish("agents/child/inbox", "mine");
    await stream.until(1);
    const child = api.host.agents.get("child");
    if (child)
      api.host.agents.set("child", { ...child, created_at: new Date().toISOString(), parent_id: "top" });
    await publish("agents/child/inbox", "not mine");
    await waitFor(() => stream.ended(), { what: "the end of the stream" });
    expect(stream.all()).toMatchObject([{ payload: "mine" }]);
  });
});

describe("among agents", () => {
  const me = { kind: "operator", id: "operator" } as const;
  const started = async (options: Parameters<typeof createTestKernel>[0]) => {
    const kernel = createTestKernel(options);
    await kernel.start();
    return kernel;
  };
  let bus: MessageBus;
  const peek = definePlugin({
    name: "peek",
    apiVersion: 1,
    requires: [messageBus],
    options: z.strictObject({}),
    setup(ctx) {
      bus = ctx.use(messageBus);
    },
  });
  /** What is kept under a filter by now. */
  const kept = async (filter: string) => {
    const seen: { topic: string; value: { present?: boolean; agent_id?: string } }[] = [];
    await bus.publish({ topic: "end", payload: Buffer.from("{}") });
    for (const one of [filter, "end"]) {
      const over = new AbortController();
      setImmediate(() => over.abort());
      for await (const { topic, payload } of bus.subscribe({
        filter: one,
        after: "0",
        signal: over.signal,
      })) {
        seen.push({ topic, value: JSON.parse(Buffer.from(payload).toString()) });
      }
    }
    return seen.filter(({ topic }) => topic !== "end");
  };

  it("the daemon tells what happens and who is there, and an agent's topics go with it", async () => {
    const kernel = await started({ plugins: [busMemory(), operationBus(), peek()] });
    try {
      const publishTo = (topic: string) => kernel.dispatch("bus.publish", { topic, payload: {} }, me);
      await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
      await kernel.agents.wait("a", "ready");
      await publishTo("agents/a/inbox");
      await publishTo("shared/a");
      expect(await kept("agents/#")).toHaveLength(1);
      await kernel.control.stop("a", operator);
      await kernel.agents.wait("a", "settled");
      const topics = (await kept("openstarry/events/#")).map(({ topic }) => topic);
      expect(topics).toEqual(
        expect.arrayContaining([
          "openstarry/events/daemon.ready",
          "openstarry/events/agent.created/a",
          "openstarry/events/agent.state/a",
          "openstarry/events/agent.exited/a",
        ]),
      );
      const presence = await kept("openstarry/presence/a");
      expect(presence.map(({ value }) => value.present)).toEqual([true, false]);
      const gone = kernel.agents.wait("a", "gone");
      await kernel.control.remove("a", operator);
      await gone;
      expect(await kept("agents/#")).toEqual([]);
      expect(await kept("shared/#")).toHaveLength(1);
      expect((await kept("openstarry/events/agent.deleted/a")).length).toBe(1);
      await expect(publishTo("agents/a/inbox")).rejects.toMatchObject({ code: "agent_not_found" });
      // What a daemon that died could not clear away any more.
      await bus.publish({ topic: "agents/a/inbox", payload: Buffer.from("{}") });
      await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
      expect(await kept("agents/#")).toEqual([]);
      expect(await kept("openstarry/events/agent.deleted/a")).toEqual([]);
    } finally {
      await kernel.stop({ agents: "stop", reason: "the test is over" });
    }
  });

  it("agents that require a bus start where there is one, and are told of it", async () => {
    const templates = { Needs: { requires: ["bus"] } };
    const kernel = await started({ plugins: [busMemory(), operationBus()], templates });
    try {
      await kernel.control.create({ agent_id: "a", template_id: "Needs" }, operator);
      await kernel.agents.wait("a", "ready");
      expect(kernel.agents.get("a")?.state).toBe("running");
    } finally {
      await kernel.stop({ agents: "stop", reason: "the test is over" });
    }
  });

  it("without a bus the operations say what to do, and templates that require one are refused", async () => {
    const kernel = await started({
      plugins: [operationBus()],
      templates: { Needs: { requires: ["bus"] } },
    });
    try {
      const sent = kernel.dispatch("bus.publish", { topic: "shared/t", payload: 1 }, me);
      await expect(sent).rejects.toMatchObject({ code: "slot_empty" });
      const made = kernel.control.create({ agent_id: "a", template_id: "Needs" }, operator);
      await expect(made).rejects.toMatchObject({ code: "template_invalid" });
    } finally {
      await kernel.stop({ agents: "stop", reason: "the test is over" });
    }
  });
});
