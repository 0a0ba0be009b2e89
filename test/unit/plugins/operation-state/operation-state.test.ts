import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  authenticator,
  definePlugin,
  OpenStarryError,
  stateStore,
  systemClock,
} from "../../../../core/index.js";
import authenticatorTokens from "../../../../plugins/authenticator-tokens/index.js";
import authorizerTree from "../../../../plugins/authorizer-tree/index.js";
import httpApi from "../../../../plugins/http-api/index.js";
import operationState from "../../../../plugins/operation-state/index.js";
import stateMemory from "../../../../plugins/state-memory/index.js";
import { createMemoryStore } from "../../../../plugins/state-memory/memory-store.js";
import { createTestKernel } from "../../../contract/index.js";
import { memoryJournalState, memorySpawner } from "../../../contract/memory-plugins.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { type Api, startApi, tidy } from "../../../helpers/http-api.js";
import { readEvents } from "../../../helpers/read-events.js";
import { waitFor } from "../../../helpers/wait-for.js";

const operator = { actor: "operator", reason: "a test" };
const agents = [
  { id: "lead", children: { max: 9, depth: 3 } },
  { id: "child", parent: "lead" },
  { id: "stranger" },
];

let api: Api;
beforeEach(async () => {
  const plugins = [
    stateMemory(),
    operationState(),
    authenticatorTokens(),
    authorizerTree(),
    httpApi({ port: 0 }),
  ];
  api = await startApi([], {}, { plugins, agents });
});
afterEach(tidy);

const as = (method: string, path: string, body?: unknown, headers = {}) =>
  api.ask({ method, path, token: api.token, headers, ...(body === undefined ? {} : { body }) });

describe("values over HTTP", () => {
  it("are put, read, listed and removed, with their version as ETag", async () => {
    const put = await as("PUT", "/state/shared/reports/daily", { value: { rows: [1, null] } });
    expect([put.status, put.json]).toEqual([
      200,
      { key: "reports/daily", version: 1, updated_at: expect.any(String) },
    ]);
    expect(put.headers.etag).toBe('"1"');
    const got = await as("GET", "/state/shared/reports/daily");
    expect(got.json).toEqual({ ...put.json, value: { rows: [1, null] } });
    expect(got.headers.etag).toBe('"1"');
    await as("PUT", "/state/shared/reports/a%20%C3%A9", { value: 2, ttl: "1h" });
    const list = await as("GET", "/state/shared?prefix=reports/&keys_only=true");
    expect(list.json).toEqual({
      items: [
        expect.objectContaining({ key: "reports/a é", expires_at: expect.any(String) }),
        { key: "reports/daily", version: 1, updated_at: expect.any(String) },
      ],
    });
    expect((await as("DELETE", "/state/shared/reports/daily")).json).toEqual({
      key: "reports/daily",
      deleted: true,
    });
    expect((await as("DELETE", "/state/shared/reports/daily")).json).toMatchObject({ deleted: false });
    const longest = `/state/shared/${encodeURIComponent("é".repeat(256))}`;
    expect((await as("PUT", longest, { value: 1 })).status).toBe(200);
    const gone = await as("GET", "/state/shared/reports/daily");
    expect([gone.status, gone.json]).toEqual([404, expect.objectContaining({ code: "state_not_found" })]);
  });

  it("are changed at a version only, said by header or field", async () => {
    const path = "/state/shared/lock";
    expect((await as("PUT", path, { value: "a" }, { "if-none-match": "*" })).status).toBe(200);
    const refused = await as("PUT", path, { value: "b" }, { "if-none-match": "*" });
    expect([refused.status, refused.json]).toEqual([
      409,
      expect.objectContaining({ code: "state_conflict", key: "lock", version: 1 }),
    ]);
    expect((await as("PUT", path, { value: "b" }, { "if-match": '"1"' })).status).toBe(200);
    expect((await as("PUT", path, { value: "c", if_version: 1 })).status).toBe(409);
    expect((await as("DELETE", path, undefined, { "if-match": '"1"' })).status).toBe(409);
    expect((await as("DELETE", `${path}?if_version=2`)).json).toMatchObject({ deleted: true });
    const twice = await as("PUT", path, { value: 1, if_version: 1 }, { "if-match": '"2"' });
    expect([twice.status, twice.json["detail"]]).toEqual([400, "if_version is 1, and the header says 2"]);
    expect((await as("PUT", path, { value: 1 }, { "if-match": "W/1" })).status).toBe(400);
  });

  it("are written together or not at all", async () => {
    const writes = [
      { op: "put", key: "a", value: 1 },
      { op: "put", key: "b", value: 2, if_version: "absent" },
      { op: "delete", key: "none" },
    ];
    const done = await as("POST", "/state/shared", { writes });
    expect(done.json).toEqual({
      items: [{ key: "a", version: 1 }, { key: "b", version: 2 }, { key: "none" }],
    });
    const refused = await as("POST", "/state/shared", {
      writes: [{ op: "put", key: "a", value: 9 }, writes[1]],
    });
    expect(refused.status).toBe(409);
    expect((await as("GET", "/state/shared/a")).json).toMatchObject({ value: 1, version: 1 });
  });

  it("come in pages", async () => {
    for (let index = 0; index < 25; index++) await as("PUT", `/state/shared/k/${index}`, { value: index });
    const seen: string[] = [];
    for (let cursor = ""; ; ) {
      const page = await as("GET", `/state/shared?limit=10${cursor && `&cursor=${cursor}`}`);
      seen.push(...(page.json["items"] as { key: string }[]).map(({ key }) => key));
      cursor = (page.json["next_cursor"] as string | undefined) ?? "";
      if (!cursor) break;
    }
    expect([seen.length, new Set(seen).size]).toEqual([25, 25]);
  });

  it("refuse a cursor that was not handed out", async () => {
    await as("PUT", "/state/shared/k", { value: 1 });
    // No base64url, no UTF-8, and one with a bit too many.
    for (const cursor of ["%20", "made-up!", "_w", "YR"]) {
      const answer = await as("GET", `/state/shared?cursor=${cursor}`);
      expect([answer.status, answer.json["code"]], cursor).toEqual([400, "input_invalid"]);
    }
  });

  it("are watched as events, which resume where they broke", async () => {
    const read = (lastEventId: number, count: number) =>
      readEvents({
        at: api.port,
        token: api.token,
        path: "/state-watch/shared?prefix=k",
        lastEventId,
        until: (events) => events.length === count,
      });
    for (const key of ["k1", "other", "k2"]) await as("PUT", `/state/shared/${key}`, { value: key });
    const first = await read(0, 2);
    expect(first).toMatchObject([
      { id: 1, event: "put", data: { key: "k1", value: "k1" } },
      { id: 3, event: "put", data: { key: "k2" } },
    ]);
    const next = read(3, 2);
    await as("PUT", "/state/shared/k3", { value: 3 });
    await as("DELETE", "/state/shared/k1");
    expect(await next).toMatchObject([
      { id: 4, event: "put", data: { key: "k3" } },
      { id: 5, event: "delete", data: { key: "k1", version: 5 } },
    ]);
  });

  it.each<[string, string, string, unknown, string]>([
    ["a namespace", "PUT", "/state/Agent:x/k", { value: 1 }, "namespace"],
    ["the daemon's own namespace", "GET", "/state/daemon:x/k", undefined, "namespace"],
    ["a key with a control character", "PUT", "/state/shared/a%0Ab", { value: 1 }, "key"],
    [
      "a key that is too long",
      "PUT",
      `/state/shared/${encodeURIComponent("é".repeat(257))}`,
      { value: 1 },
      "key",
    ],
    ["no value", "PUT", "/state/shared/k", {}, "value"],
    ["a value that is too large", "PUT", "/state/shared/k", { value: "x".repeat(2 ** 20) }, "value"],
    ["a time without a unit", "PUT", "/state/shared/k", { value: 1, ttl: "5" }, "ttl"],
    ["an unknown field", "PUT", "/state/shared/k", { value: 1, tll: "5s" }, "tll"],
    ["no writes", "POST", "/state/shared", { writes: [] }, "writes"],
    ["an unknown write", "POST", "/state/shared", { writes: [{ op: "add", key: "k" }] }, "writes"],
  ])("%s that cannot be used is refused by name", async (_, method, path, body, field) => {
    const { status, json } = await as(method, path, body);
    expect([status, json["code"], json["detail"]]).toEqual([
      400,
      "input_invalid",
      expect.stringContaining(field),
    ]);
    expect(await api.host.use(stateStore).list("shared", { limit: 10 })).toMatchObject({ entries: [] });
  });
});

describe("what an agent may reach", () => {
  it.each([
    ["agent:lead", 200],
    ["shared", 200],
    ["agent:child", 200],
    ["agent:stranger", 403],
    ["agent:nobody", 403],
    ["operators-own", 403],
  ])("%s: %i", async (namespace, expected) => {
    const token = api.host.use(authenticator).mint({ agentId: "lead", runId: "run-of-lead" });
    const path = `/state/${namespace}`;
    const asked = await Promise.all([
      api.ask({ token, method: "PUT", path: `${path}/k`, body: { value: 1 } }),
      api.ask({ token, method: "POST", path, body: { writes: [{ op: "put", key: "k", value: 1 }] } }),
      api.ask({ token, path }),
      api.ask({ token, method: "DELETE", path: `${path}/k` }),
    ]);
    expect(asked.map(({ status }) => status)).toEqual(asked.map(() => expected));
    if (expected !== 403) return;
    expect(asked[0]?.json).toMatchObject({ code: "forbidden", hint: expect.stringContaining("agent:lead") });
    expect(await api.host.use(stateStore).namespaces()).toEqual([]);
  });

  it("no agent drops a namespace", async () => {
    const token = api.host.use(authenticator).mint({ agentId: "lead", runId: "run-of-lead" });
    expect((await api.ask({ token, method: "DELETE", path: "/state/shared" })).status).toBe(403);
    await as("PUT", "/state/shared/k", { value: 1 });
    expect((await as("DELETE", "/state/shared")).json).toEqual({ namespace: "shared", dropped: true });
    expect((await as("GET", "/state/shared/k")).status).toBe(404);
  });
});

describe("among agents", () => {
  const me = { kind: "operator", id: "operator" } as const;

  it("an agent's namespace goes with the agent", async () => {
    const kernel = createTestKernel({ plugins: [stateMemory(), operationState()] });
    await kernel.start();
    try {
      const put = (namespace: string) => kernel.dispatch("state.put", { namespace, key: "k", value: 1 }, me);
      await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
      await put("agent:a");
      await put("shared");
      const gone = kernel.agents.wait("a", "gone");
      await kernel.control.remove("a", operator);
      await gone;
      const read = () =>
        kernel.dispatch("state.list", { namespace: "agent:a" }, me) as Promise<{ items: [] }>;
      await waitFor(async () => (await read()).items.length === 0, { what: "the end of the namespace" });
      expect(await kernel.dispatch("state.get", { namespace: "shared", key: "k" }, me)).toMatchObject({
        value: 1,
      });
    } finally {
      await kernel.stop({ agents: "stop", reason: "the test is over" });
    }
  });

  it("what it kept is gone for a later one of its id, also when the store was away when it ended", async () => {
    const store = awayStore();
    const kernel = createTestKernel({ plugins: [store.plugin, operationState()] });
    await kernel.start();
    const put = (key: string) => kernel.dispatch("state.put", { namespace: "agent:a", key, value: key }, me);
    const keys = async () => {
      const { items } = (await kernel.dispatch("state.list", { namespace: "agent:a" }, me)) as ListAnswer;
      return items.map(({ key }) => key);
    };
    try {
      await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
      await put("first's");
      store.isAway = true;
      const gone = kernel.agents.wait("a", "gone");
      await kernel.control.remove("a", operator);
      await gone;
      await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
      await expect(keys()).rejects.toMatchObject({ code: "state_unavailable" });
      store.isAway = false;
      store.isFull = true;
      await expect(put("too early")).rejects.toMatchObject({ code: "state_unavailable" });
      expect(await kernel.dispatch("state.list", { namespace: "shared" }, me)).toEqual({ items: [] });
      store.isFull = false;
      await put("second's");
      expect(await keys()).toEqual(["second's"]);
    } finally {
      await kernel.stop({ agents: "stop", reason: "the test is over" });
    }
  });

  it("what an agent in quarantine kept is left alone until it is discarded", async () => {
    const { store } = createMemoryStore(systemClock);
    const kept = definePlugin({
      name: "kept-store",
      apiVersion: 1,
      provides: [stateStore],
      options: z.strictObject({}),
      setup: (ctx) => ctx.provide(stateStore, store),
    });
    const [state, spawner] = [memoryJournalState(), memorySpawner()];
    const start = async () => {
      const kernel = createTestKernel({ plugins: [kept(), operationState()], state, spawner });
      await kernel.start();
      return kernel;
    };
    const before = await start();
    await before.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await before.agents.wait("a", "ready");
    for (const namespace of ["agent:a", "agent:gone"]) {
      await store.write(namespace, [{ op: "put", key: "k", value: 1 }]);
    }
    await before.stop({ agents: "keep", reason: "an upgrade" });
    spawner.run("a").end({ kind: "exited", code: 1 });
    spawner.reapOrphans = async () => [{ agentId: "a", pids: [4_711] }];
    const kernel = await start();
    try {
      expect(kernel.agents.quarantined("a")).toContain("4711");
      const left = () => store.namespaces();
      await waitFor(async () => !(await left()).includes("agent:gone"), { what: "the sweep" });
      expect(await left()).toEqual(["agent:a"]);
      await kernel.control.discard("a", operator);
      await waitFor(async () => (await left()).length === 0, { what: "the end of the namespace" });
    } finally {
      await kernel.stop({ agents: "stop", reason: "the test is over" });
    }
  });

  it("a request brings up a store that is left until it is needed, and waits for it", async () => {
    const clock = createFakeClock();
    const store = awayStore(() => clock.after(1_000, () => (store.isAway = false)));
    store.isAway = true;
    const kernel = createTestKernel({ plugins: [store.plugin, operationState()], clock });
    await kernel.start();
    try {
      const put = kernel.dispatch("state.put", { namespace: "shared", key: "k", value: 1 }, me);
      await clock.advance(1_100);
      expect(await put).toMatchObject({ key: "k", version: 1 });
    } finally {
      await kernel.stop({ agents: "stop", reason: "the test is over" });
    }
  });

  it("without a store the operations say what to do, and templates that require one are refused", async () => {
    const kernel = createTestKernel({
      plugins: [operationState()],
      templates: { Needs: { requires: ["state"] } },
    });
    await kernel.start();
    try {
      const got = kernel.dispatch("state.get", { namespace: "shared", key: "k" }, me);
      await expect(got).rejects.toMatchObject({ code: "slot_empty" });
      const made = kernel.control.create({ agent_id: "a", template_id: "Needs" }, operator);
      await expect(made).rejects.toMatchObject({ code: "template_invalid" });
    } finally {
      await kernel.stop({ agents: "stop", reason: "the test is over" });
    }
  });
});

type ListAnswer = { items: { key: string }[] };

/** A store in memory that may be away; `wanted` is called when somebody needs it. */
function awayStore(wanted?: () => void) {
  const it = {
    isAway: false,
    /** Then nothing can be dropped. */
    isFull: false,
    plugin: definePlugin({
      name: "away-store",
      apiVersion: 1,
      provides: [stateStore],
      options: z.strictObject({}),
      setup(ctx) {
        const { store, start, stop } = createMemoryStore(ctx.clock);
        ctx.provide(stateStore, {
          ...store,
          drop: async (name: string) => {
            if (it.isFull) throw new OpenStarryError("state_unavailable", { detail: "the disk is full" });
            await store.drop(name);
          },
          health: () => (it.isAway ? "it is away" : store.health()),
          ...(wanted && { wanted }),
        });
        return { start, stop };
      },
    })(),
  };
  return it;
}
