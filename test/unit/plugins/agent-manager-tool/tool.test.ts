import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { createClient } from "../../../../plugins/agent-manager-tool/client/client.js";
import type { Agent } from "../../../../plugins/agent-manager-tool/client/wire.js";
import { DEFINITIONS, TOOL_NAMES } from "../../../../plugins/agent-manager-tool/tools/definitions.js";
import {
  type AgentManagerTool,
  createAgentManagerTool,
  type ToolResult,
} from "../../../../plugins/agent-manager-tool/tools/tool.js";
import { type FakeApi, type Route, type SeenRequest, send, startFakeApi } from "../../../helpers/fake-api.js";

let api: FakeApi | undefined;

afterEach(async () => {
  await api?.close();
  api = undefined;
});

async function toolFor(route: Route): Promise<AgentManagerTool> {
  api = await startFakeApi(route);
  return createAgentManagerTool({ client: createClient({ url: api.url, token: "t" }) });
}

function agent(given: Partial<Agent> & { agent_id: string }): Agent {
  return {
    template_id: "Worker_v1",
    template_revision: "1",
    state: "running",
    desired: "running",
    health: "unknown",
    spawner: "process",
    restarts: 0,
    created_at: "2026-01-01T00:00:00.000Z",
    labels: {},
    ...given,
  };
}

const exited = {
  state: "exited",
  last_exit: {
    kind: "exited",
    code: 1,
    cause: "self",
    actor: "agent:a",
    reason: "exited with 1",
    success: false,
    ended_at: "2026-01-01T00:00:01.000Z",
  },
} as const;

/** Answers by the first route whose method and path fit; a function answers for itself. */
function routes(table: Record<string, unknown>): Route {
  return (request, response) => {
    const entry = Object.entries(table).find(([key]) => {
      const [method, path = ""] = key.split(" ");
      return request.method === method && (request.path === path || request.path.startsWith(`${path}?`));
    });
    if (!entry) return send(response, 404, { code: "not_found", detail: `no route for ${request.path}` });
    const [, answer] = entry;
    return typeof answer === "function" ? answer(request, response) : answer;
  };
}

const problem = (status: number, code: string, hint?: string) => (_: SeenRequest, response: never) =>
  send(response, status, { code, detail: `it is ${code}`, ...(hint ? { hint } : {}) });

const bytes = (result: ToolResult) => Buffer.byteLength(JSON.stringify(result));

describe("definitions", () => {
  it("are plain JSON Schemas that other validators understand", () => {
    for (const { parameters } of DEFINITIONS) {
      const schema = z.fromJSONSchema(parameters as never);
      expect(schema.safeParse({ nobody: 1 }).success).toBe(false);
      for (const name of parameters.required) expect(Object.keys(parameters.properties)).toContain(name);
    }
    expect(DEFINITIONS.map(({ name }) => name).sort()).toEqual([...TOOL_NAMES].sort());
  });

  it("come in the shape that each API takes", async () => {
    const tool = await toolFor(routes({ "GET /agents": { items: [] } }));
    const names = TOOL_NAMES.map((name) => name.replace(":", "_"));
    const openai = tool.openAiTools();
    expect(openai.map((it) => it.function.name)).toEqual(names);
    for (const it of openai) {
      expect(it).toMatchObject({
        type: "function",
        function: { strict: false, parameters: { type: "object" } },
      });
      // What both APIs allow in a name, and OpenAI's limit of a description.
      expect(it.function.name).toMatch(/^[a-zA-Z0-9_-]{1,64}$/);
      expect(it.function.description.length).toBeLessThan(1_024);
    }
    expect(tool.anthropicTools().map(({ name }) => name)).toEqual(names);
    expect(tool.anthropicTools()[0]).toHaveProperty("input_schema.type", "object");
    expect(tool.mcpTools().find(({ name }) => name === "agent_stop")).toMatchObject({
      inputSchema: { type: "object" },
      annotations: { readOnlyHint: false, destructiveHint: true },
    });
    const own = tool.openStarryTools((schema) => z.fromJSONSchema(schema as never));
    expect(own.map(({ id }) => id)).toEqual([...TOOL_NAMES]);
    const list = own.find(({ id }) => id === "agent:list");
    expect(list?.parameters).toBeInstanceOf(z.ZodType);
    expect(await list?.execute({ limit: 5 }, {})).toBe('{"ok":true,"data":{"agents":[]}}');
  });
});

describe("arguments", () => {
  const circle: Record<string, unknown> = {};
  circle["again"] = circle;
  it.each<[string, unknown, RegExp]>([
    ["a bigint", { template_id: "t", params: { n: 1n } }, /params: it cannot be written as JSON/],
    ["a bigint as a text", { template_id: 1n }, /template_id: it cannot be written as JSON/],
    ["nothing but a bigint", 1n, /the arguments are 1n, expected an object/],
    ["a circle", { template_id: "t", params: circle }, /params: it is nested more than 64 levels deep/],
    [
      "a deep list as JSON text",
      { template_id: "t", params: `{"a":${"[".repeat(20_000)}${"]".repeat(20_000)}}` },
      /params: it is nested more than 64 levels deep/,
    ],
  ])("that no JSON can carry are refused: %s", async (_, args, detail) => {
    const tool = await toolFor(routes({}));
    const result = await tool.execute("agent_start", args);
    expect(result).toMatchObject({ ok: false, error: { code: "input_invalid" } });
    expect(result.error?.detail).toMatch(detail);
    expect(api?.seen).toEqual([]);
  });

  it("are taken under any spelling of the tool's name, and as JSON text", async () => {
    const tool = await toolFor(routes({ "GET /agents/a": agent({ agent_id: "a" }) }));
    for (const name of ["agent:status", "agent_status", "agent.status", "Agent-Status"]) {
      expect(await tool.execute(name, '{"agent_id":"a"}')).toMatchObject({
        ok: true,
        data: { agent_id: "a" },
      });
    }
  });

  const wrong: [string, string, unknown, string, string][] = [
    ["an unknown tool", "agent_strat", {}, "operation_unknown", 'did you mean "agent_start"?'],
    ["a missing argument", "agent_start", {}, "input_invalid", "template_id (string, required)"],
    ["no object", "agent_start", [1], "input_invalid", "agent_start takes"],
    ["broken JSON", "agent_start", '{"template_id":', "input_invalid", "give one JSON object"],
    [
      "a bad id",
      "agent_start",
      { template_id: "T", agent_id: "../etc" },
      "input_invalid",
      "agent_id (string)",
    ],
    ["a list of numbers", "agent_wait", { agent_ids: [1] }, "input_invalid", "list of 1 to 50 strings"],
    [
      "a number without unit",
      "agent_wait",
      { agent_ids: ["a"], timeout: 60 },
      "input_invalid",
      "timeout (string)",
    ],
    [
      "too many lines",
      "agent_logs",
      { agent_id: "a", tail: 1e9 },
      "input_invalid",
      "integer from 1 to 10000",
    ],
    [
      "a prototype",
      "agent_status",
      '{"__proto__":{"agent_id":"a"}}',
      "input_invalid",
      "agent_id (string, required)",
    ],
  ];
  it.each(wrong)("say what is expected for %s", async (_, name, args, code, hint) => {
    const tool = await toolFor(() => ({}));
    const result = await tool.execute(name, args);
    expect(result).toMatchObject({ ok: false, error: { code, retryable: false } });
    expect(result.error?.hint).toContain(hint);
    expect(api?.seen).toEqual([]);
  });

  it("are named in the detail, with the nearest that exists", async () => {
    const tool = await toolFor(() => ({}));
    const { error } = await tool.execute("agent_start", {
      template: "T",
      parms: {},
      params: 7,
      wait_until: "reddy",
    });
    expect(error?.detail).toContain('unknown argument "parms" (did you mean "params"?)');
    expect(error?.detail).toContain("params: expected object, got 7");
    expect(error?.detail).toContain(
      'wait_until: expected one of "started", "ready", got "reddy" (did you mean "ready"?)',
    );
    expect(error?.detail).toContain('"template_id" is missing');
    const wait = await tool.execute("agent_wait", { agent_id: "a" });
    expect(wait.error?.detail).toContain('unknown argument "agent_id" (did you mean "agent_ids"?)');
    const timeout = await tool.execute("agent_wait", { agent_ids: "a", timeout: "60" });
    expect(timeout.error?.detail).toContain('such as "30s" or "10m"');
  });

  it("may be null where they are optional, one id where a list is wanted, and JSON text where an object is", async () => {
    const tool = await toolFor(
      routes({
        "POST /agents": agent({ agent_id: "a" }),
        "GET /agents/a": agent({ agent_id: "a", ...exited }),
      }),
    );
    const start = { template_id: "T", agent_id: null, params: '{"file":"x"}' };
    expect(await tool.execute("agent_start", start)).toMatchObject({ ok: true });
    expect(api?.seen[0]?.body).toEqual({ template_id: "T", params: { file: "x" } });
    expect(await tool.execute("agent_wait", { agent_ids: "a" })).toMatchObject({
      ok: true,
      data: { done: true },
    });
  });
});

describe("failures", () => {
  it("never throws, whatever happens", async () => {
    const broken = createAgentManagerTool({
      env: { OPENSTARRY_TOKEN_FILE: "/none", OPENSTARRY_API_URL: "http://evil.example" },
    });
    expect(await broken.execute("agent_list")).toMatchObject({ ok: false, error: { code: "input_invalid" } });
    const odd = createAgentManagerTool({
      client: { agents: { list: () => Promise.reject("odd") } } as never,
    });
    expect(await odd.execute("agent_list")).toMatchObject({
      ok: false,
      error: { code: "internal", retryable: false },
    });
    const circular: Record<string, unknown> = { template_id: "T" };
    circular["params"] = circular;
    expect(await odd.execute("agent_start", circular)).toMatchObject({ ok: false });
    expect(await odd.execute(undefined as never, null)).toMatchObject({ ok: false });
  });

  it("says when it is worth trying again", async () => {
    const gone = await toolFor(() => ({}));
    await api?.close();
    api = undefined;
    expect(await gone.execute("agent_list")).toMatchObject({
      ok: false,
      error: { code: "daemon_not_running", retryable: true, retry_after_s: 5 },
    });
    const limited = await toolFor((_, response) =>
      send(response, 429, { code: "rate_limited", detail: "slow down", retry_after_s: 42 }),
    );
    expect((await limited.execute("agent_list")).error).toMatchObject({ retryable: true, retry_after_s: 42 });
  });

  it("tells of a taken id how to go on with it", async () => {
    const taken = { "POST /agents": problem(409, "agent_exists") };
    const start = { template_id: "T", agent_id: "w" };
    let tool = await toolFor(routes({ ...taken, "GET /agents/w": agent({ agent_id: "w" }) }));
    expect((await tool.execute("agent_start", start)).error?.hint).toMatch(
      /it is running: .*agent_wait.*such as "w_2"/,
    );
    await api?.close();
    tool = await toolFor(routes({ ...taken, "GET /agents/w": agent({ agent_id: "w", ...exited }) }));
    expect((await tool.execute("agent_start", start)).error?.hint).toMatch(
      /agent_result.*agent_restart.*remove: true/,
    );
    await api?.close();
    tool = await toolFor(routes({ ...taken, "GET /agents/w_2": problem(403, "forbidden") }));
    const other = await tool.execute("agent_start", { ...start, agent_id: "w_2" });
    expect(other.error?.hint).toBe('it is not yours to use: choose another agent_id, such as "w_3"');
  });

  it("suggests the nearest template and the nearest agent", async () => {
    const tool = await toolFor(
      routes({
        "POST /agents": problem(422, "template_not_found"),
        "GET /templates": { items: [{ template_id: "DataAnalystAgent_v1" }, { template_id: "Other" }] },
        "GET /agents/wroker_1": problem(403, "forbidden", "it may act on what it started: worker_1"),
        "GET /agents/zzz": problem(403, "forbidden", "it may act on what it started: worker_1"),
        "GET /agents": { items: [agent({ agent_id: "worker_1" })] },
      }),
    );
    const start = await tool.execute("agent_start", { template_id: "DataAnalyst_v1" });
    expect(start.error?.hint).toContain("the templates are: DataAnalystAgent_v1, Other");
    const near = await tool.execute("agent_start", { template_id: "DataAnalistAgent_v1" });
    expect(near.error?.hint).toContain('did you mean "DataAnalystAgent_v1"?');
    const status = await tool.execute("agent_status", { agent_id: "wroker_1" });
    expect(status.error?.hint).toContain('did you mean "worker_1"?');
    const stranger = await tool.execute("agent_status", { agent_id: "zzz" });
    expect(stranger.error?.hint).toBe("it may act on what it started: worker_1");
  });

  it("says it in the words of the tools, not of HTTP", async () => {
    const hint =
      "wait with GET /agents/a?wait_for=ended, or POST /agents/a/start, or DELETE /agents/a; GET /agents lists them";
    const tool = await toolFor(
      routes({
        "POST /agents/a/stop": problem(409, "agent_not_running", hint),
        "GET /agents/a/why": {
          agent_id: "a",
          next: "its record is forgotten",
          hint: "DELETE it; or GET /agents/a/logs",
        },
      }),
    );
    expect((await tool.execute("agent_stop", { agent_id: "a" })).error?.hint).toBe(
      "wait with agent_wait, or agent_restart, or agent_stop with remove: true; agent_list lists them",
    );
    expect((await tool.execute("agent_why", { agent_id: "a" })).data?.["hint"]).toBe(
      "agent_stop with remove: true; or agent_logs",
    );
  });

  it("keeps the daemon's own hint when asking for a better one fails too", async () => {
    const tool = await toolFor(routes({ "GET /agents/x": problem(404, "agent_not_found", "look again") }));
    expect((await tool.execute("agent_why", { agent_id: "x" })).error?.code).toBe("not_found");
    expect((await tool.execute("agent_status", { agent_id: "x" })).error?.hint).toBe("look again");
  });
});

describe("starting", () => {
  it("uses the key of a start whose outcome is unknown again, and only of that", async () => {
    const answers: (() => "lost" | Agent)[] = [
      () => "lost",
      () => agent({ agent_id: "a" }),
      () => agent({ agent_id: "b" }),
    ];
    const tool = await toolFor((_, response) => {
      const answer = answers.shift()?.();
      return answer === "lost" ? void response.destroy() : answer;
    });
    const lost = await tool.execute("agent_start", { template_id: "T", params: { a: 1, b: 2 } });
    expect(lost.error).toMatchObject({ code: "daemon_not_running", retryable: true });
    const again = await tool.execute("agent_start", { params: { b: 2, a: 1 }, template_id: "T" });
    expect(again).toMatchObject({ ok: true, data: { agent_id: "a" } });
    const second = await tool.execute("agent_start", { template_id: "T", params: { a: 1, b: 2 } });
    expect(second).toMatchObject({ ok: true, data: { agent_id: "b" } });
    const [one, two, three] = (api?.seen ?? []).map(({ headers }) => headers["idempotency-key"]);
    expect(two).toBe(one);
    expect(three).not.toBe(one);
  });

  it("takes a new key after a definite refusal, and for other arguments", async () => {
    const tool = await toolFor(
      routes({
        "POST /agents": problem(422, "params_invalid", "it takes file"),
        "GET /agents/a": agent({ agent_id: "a" }),
      }),
    );
    await tool.execute("agent_start", { template_id: "T" });
    const { error } = await tool.execute("agent_start", { template_id: "T" });
    expect(error?.hint).toBe("it takes file; call agent_start again with all of these in params");
    await tool.execute("agent_start", { template_id: "U" });
    expect(new Set(api?.seen.map(({ headers }) => headers["idempotency-key"])).size).toBe(3);
  });
});

describe("waiting", () => {
  it("answers what is the case when the time is up", async () => {
    const tool = await toolFor(
      routes({
        "GET /agents/quick": agent({ agent_id: "quick", ...exited }),
        "GET /agents/slow": agent({ agent_id: "slow", status: "still at it" }),
      }),
    );
    const result = await tool.execute("agent_wait", { agent_ids: ["quick", "slow"], timeout: "50ms" });
    expect(result).toMatchObject({
      ok: true,
      data: {
        done: false,
        waiting_for: ["slow"],
        agents: [
          { agent_id: "quick", ended: true },
          { agent_id: "slow", status: "still at it" },
        ],
      },
    });
  });

  it("tells a wrong id at once, and an agent that was removed meanwhile", async () => {
    let looks = 0;
    const tool = await toolFor(
      routes({
        "GET /agents/removed": (_: SeenRequest, response: never) =>
          ++looks === 1
            ? agent({ agent_id: "removed" })
            : send(response, 404, { code: "agent_not_found", detail: "gone" }),
        "GET /agents/wrong": problem(404, "agent_not_found"),
        "GET /agents": { items: [agent({ agent_id: "removed" })] },
      }),
    );
    expect(await tool.execute("agent_wait", { agent_ids: ["removed"] })).toMatchObject({
      ok: true,
      data: { done: true, agents: [{ agent_id: "removed", removed: true }] },
    });
    looks = 0;
    const wrong = await tool.execute("agent_wait", { agent_ids: ["removed", "wrong"], timeout: "1h" });
    expect(wrong.error).toMatchObject({
      code: "agent_not_found",
      hint: "the agents that you may see are: removed",
    });
  });
});

describe("size", () => {
  const many = Array.from({ length: 500 }, (_, index) =>
    agent({
      agent_id: `worker_${index}`,
      reason: "waits for the others — é".repeat(3),
      labels: { n: String(index) },
    }),
  );

  it("is at most 4 KiB, with the way to the rest", async () => {
    const tool = await toolFor(routes({ "GET /agents": { items: many, next_cursor: "c1" } }));
    const result = await tool.execute("agent_list");
    expect(bytes(result)).toBeLessThanOrEqual(4_096);
    expect(bytes(result)).toBeGreaterThan(2_500);
    const { agents, next_cursor, shortened } = result.data as {
      agents: Agent[];
      next_cursor: string;
      shortened: string;
    };
    expect(agents[0]?.agent_id).toBe("worker_0");
    expect(next_cursor).toBe("c1");
    expect(shortened).toContain(`agents: the first ${agents.length} of 500 are shown`);
    expect(shortened).toContain("max_bytes");
  });

  it("is what was asked for", async () => {
    const tool = await toolFor(routes({ "GET /agents": { items: many } }));
    expect(bytes(await tool.execute("agent_list", { max_bytes: 1_024 }))).toBeLessThanOrEqual(1_024);
    const large = await tool.execute("agent_list", { max_bytes: 1_048_576 });
    expect(large.data?.["agents"]).toHaveLength(500);
    expect(large.data).not.toHaveProperty("shortened");
    const verbose = await tool.execute("agent_list", { verbose: true });
    expect(bytes(verbose)).toBeLessThanOrEqual(65_536);
    expect(bytes(verbose)).toBeGreaterThan(40_000);
    expect(verbose.data).toHaveProperty("agents.0", many[0]);
  });

  it("leaves a result as the text that it is when it is nested too deeply to be unpacked", async () => {
    const exit = { ...exited.last_exit, success: true };
    const of = async (levels: number) => {
      await api?.close();
      const result = "[".repeat(levels) + "]".repeat(levels);
      const tool = await toolFor(
        routes({ "GET /agents/a/result": { agent_id: "a", run_id: "r", result, exit } }),
      );
      return (await tool.execute("agent_result", { agent_id: "a" })).data?.["result"];
    };
    expect(await of(60)).toBeInstanceOf(Array);
    expect(await of(20_000)).toMatch(/^\[+ …\[\d+ characters left out\]… \]+$/);
  });

  it("holds for whatever an agent leaves as its result", async () => {
    const deep = (levels: number): unknown =>
      levels === 0 ? "x".repeat(50) : Array(9).fill(deep(levels - 1));
    const results = [
      "ü".repeat(1_000_000),
      JSON.stringify({ findings: Array(1_000).fill("a finding"), text: "y".repeat(9_999) }),
      JSON.stringify(Object.fromEntries(Array.from({ length: 5_000 }, (_, n) => [`key_${n}`, n]))),
      JSON.stringify(deep(5)),
      JSON.stringify("\u0001\ud83d\ude00".repeat(50_000)),
    ];
    const exit = { success: true };
    for (const result of results) {
      const tool = await toolFor(
        routes({ "GET /agents/a/result": { agent_id: "a", run_id: "r", result, exit } }),
      );
      const answer = await tool.execute("agent_result", { agent_id: "a" });
      expect(answer.ok).toBe(true);
      expect(bytes(answer)).toBeLessThanOrEqual(4_096);
      expect(answer.data?.["shortened"]).toContain("max_bytes");
      await api?.close();
    }
  });

  it("holds for errors", async () => {
    const tool = await toolFor((_, response) =>
      send(response, 500, { code: "internal", detail: "\u0007é".repeat(9_000), hint: "h".repeat(9_000) }),
    );
    const result = await tool.execute("agent_list");
    expect(bytes(result)).toBeLessThanOrEqual(4_096);
    expect(result.error?.hint).toContain("characters left out");
    expect(result.error?.detail).not.toContain("\u0007");
  });
});

describe("agent:send", () => {
  const timeout = { code: "timeout", detail: "nobody answered", hint: "wait longer" };

  it("puts a message into the inbox, an object where it is the text of one", async () => {
    const tool = await toolFor(routes({ "POST /bus/agents/a/inbox": { topic: "agents/a/inbox" } }));
    for (const message of ["go on", '{"step": 2}', "12"]) {
      const sent = await tool.execute("agent_send", { agent_id: "a", message });
      expect(sent).toEqual({ ok: true, data: { sent: true, agent_id: "a" } });
    }
    expect(api?.seen.map(({ body }) => body)).toEqual([
      { payload: "go on" },
      { payload: { step: 2 } },
      { payload: "12" },
    ]);
  });

  it("returns the answer when it is waited for", async () => {
    const reply = {
      topic: "_reply/1",
      payload: { rows: 3 },
      from: "agent:a",
      at: "2026-01-01T00:00:00.000Z",
    };
    const tool = await toolFor(routes({ "POST /bus/agents/a/inbox": { topic: "agents/a/inbox", reply } }));
    const input = { agent_id: "a", message: "how many?", wait_for_reply: true, timeout: "2s" };
    expect(await tool.execute("agent:send", input)).toEqual({
      ok: true,
      data: { sent: true, agent_id: "a", replied: true, reply: { rows: 3 }, from: "agent:a" },
    });
    expect(api?.seen[0]?.body).toEqual({ payload: "how many?", wait_for_reply: true, timeout: "2000ms" });
  });

  it("that nobody answers is sent, and no reason to send it again", async () => {
    const tool = await toolFor((_, response) => send(response, 504, timeout));
    const sent = await tool.execute("agent:send", { agent_id: "a", message: "?", wait_for_reply: true });
    expect(sent).toMatchObject({ ok: true, data: { sent: true, replied: false } });
    expect(api?.seen).toHaveLength(1);
  });
});
