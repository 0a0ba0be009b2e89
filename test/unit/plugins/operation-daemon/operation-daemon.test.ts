import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import {
  AGENT_STATES,
  authenticator,
  type Endpoint,
  OpenStarryError,
  type Principal,
} from "../../../../core/index.js";
import authenticatorTokens from "../../../../plugins/authenticator-tokens/index.js";
import authorizerTree from "../../../../plugins/authorizer-tree/index.js";
import httpApi from "../../../../plugins/http-api/index.js";
import operationDaemon from "../../../../plugins/operation-daemon/index.js";
import { ask } from "../../../helpers/http-request.js";
import { createPluginHost, type PluginHostOptions } from "../../../helpers/plugin-host.js";

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const it of cleanUp.splice(0).reverse()) await it();
});

async function start(options: Partial<PluginHostOptions> = {}) {
  const home = mkdtempSync(join(tmpdir(), "oh-"));
  const host = createPluginHost({
    home,
    plugins: [authenticatorTokens(), authorizerTree(), httpApi({ port: 0 }), operationDaemon()],
    agents: [
      { id: "master", children: { max: 4, depth: 2 } },
      { id: "worker_1", parent: "master" },
      { id: "worker_2", parent: "master", state: "exited" },
    ],
    ...options,
  });
  await host.start();
  cleanUp.push(async () => {
    await host.stop(true);
    rmSync(home, { recursive: true, force: true });
  });
  const api = host.endpoints.find(({ name }) => name === "api")?.urlFor({ agent_id: "a", run_id: "r" }) ?? "";
  const at = Number(new URL(api).port);
  const operator = readFileSync(join(home, "token"), "utf8").trim();
  const tokenOf = (id: string) => host.use(authenticator).mint({ agentId: id, runId: `run-of-${id}` });
  return {
    host,
    tokenOf,
    get: (path: string, token: string | undefined = operator) => ask({ at, path, token }),
    anonymous: (path: string) => ask({ at, path }),
    post: (path: string, body?: unknown, token = operator) => ask({ at, method: "POST", path, token, body }),
  };
}

const problem = (result: Promise<unknown>) => result.catch((error: unknown) => error);

describe("what needs no token", () => {
  it("GET /healthz says that it answers", async () => {
    const { anonymous } = await start();
    expect(await anonymous("/healthz")).toMatchObject({ status: 200, json: { status: "ok" } });
  });

  it("GET /readyz is 200 when ready, and 503 with the state before and after", async () => {
    const { anonymous, host } = await start();
    expect(await anonymous("/readyz")).toMatchObject({ status: 200, json: { status: "ready" } });
    for (const state of ["starting", "stopping"] as const) {
      host.state = state;
      expect(await anonymous("/readyz")).toMatchObject({ status: 503, json: { status: state } });
    }
  });

  it.each(["/version", "/daemon", "/whoami", "/plugins", "/infrastructure", "/metrics"])(
    "%s does",
    async (path) => {
      const { anonymous } = await start();
      expect((await anonymous(path)).status).toBe(401);
    },
  );
});

describe("how the daemon is", () => {
  it("GET /version", async () => {
    const { get, tokenOf } = await start();
    expect((await get("/version", tokenOf("worker_1"))).json).toEqual({ version: "1.2.3" });
  });

  it("GET /daemon counts the agents in every state, and is the operator's", async () => {
    const { get, host, tokenOf } = await start();
    host.problems.push("the disk is full");
    const { json } = await get("/daemon");
    expect(json).toMatchObject({
      version: "1.2.3",
      pid: process.pid,
      state: "ready",
      problems: ["the disk is full"],
      agents: { running: 2, exited: 1, failed: 0 },
    });
    expect(Object.keys(json["agents"] as object)).toEqual([...AGENT_STATES]);
    expect((json["endpoints"] as { name: string }[]).map(({ name }) => name)).toEqual(["api", "api_socket"]);
    expect((await get("/daemon", tokenOf("worker_1"))).status).toBe(403);
  });

  it("GET /plugins lists them, without the credentials in their problems", async () => {
    const { get, host } = await start();
    const items = (await get("/plugins")).json["items"] as { name: string }[];
    expect(items.map(({ name }) => name)).toEqual([
      "authenticator-tokens",
      "authorizer-tree",
      "http-api",
      "operation-daemon",
    ]);
    host.pluginProblem = "no answer from redis://user:pa@ss@host:6379 and nats://host";
    const { text } = await get("/plugins");
    expect(text).toContain("no answer from redis://***@host:6379 and nats://host");
    expect(text).not.toContain("pa@ss");
  });

  it("GET /infrastructure tells names and health, and no addresses", async () => {
    const { get, host, tokenOf } = await start();
    const bus: Endpoint = {
      name: "bus",
      protocol: "mqtt",
      health: () => "connection to mqtt://daemon:canary@127.0.0.1:1883 refused",
      urlFor: () => "mqtt://agent:canary@127.0.0.1:1883",
    };
    host.endpoints.push(bus);
    const answer = await get("/infrastructure", tokenOf("worker_1"));
    expect(answer.json).toEqual({
      items: [
        { name: "api", protocol: "http", health: "healthy" },
        { name: "api_socket", protocol: "unix", health: "healthy" },
        {
          name: "bus",
          protocol: "mqtt",
          health: "unhealthy",
          problem: "connection to mqtt://***@127.0.0.1:1883 refused",
        },
      ],
    });
  });

  it("GET /metrics is a text that Prometheus reads", async () => {
    const { get, tokenOf } = await start();
    const { headers, text } = await get("/metrics", tokenOf("worker_1"));
    expect(headers["content-type"]).toBe("text/plain; version=0.0.4; charset=utf-8");
    expect(text.endsWith("\n")).toBe(true);
    for (const line of text.trimEnd().split("\n")) {
      expect(line).toMatch(
        /^(# (HELP|TYPE) openstarry_[a-z_]+ .+|openstarry_[a-z_]+(\{state="[a-z]+"\})? \d+(\.\d+)?)$/,
      );
    }
    expect(text).toContain('openstarry_agents{state="running"} 2\n');
    expect(text).toContain("openstarry_start_time_seconds 1767225600\n");
    expect(Number(/resident_memory_bytes (\d+)\n/.exec(text)?.[1])).toBeGreaterThan(10 * 2 ** 20);
  });
});

describe("GET /whoami", () => {
  it("the operator may do everything", async () => {
    const { get, host } = await start();
    const { json } = await get("/whoami");
    expect(json).toMatchObject({ kind: "operator", id: "operator", may: ["everything"] });
    expect(json["operations"]).toContain("daemon.stop");
    expect(json["operations"]).toHaveLength(12);
    expect(host.problems).toEqual([]);
  });

  it("an agent is told its ids, and what its template lets it do", async () => {
    const { get, tokenOf } = await start();
    const master = (await get("/whoami", tokenOf("master"))).json;
    expect(master).toMatchObject({
      kind: "agent",
      id: "agent:master",
      agent_id: "master",
      run_id: "run-of-master",
      template_id: "master_v1",
    });
    expect(master["may"]).toContainEqual(expect.stringContaining("at most 4 at a time and 2 deep"));
    expect(master["operations"]).not.toContain("daemon.stop");
    const worker = (await get("/whoami", tokenOf("worker_1"))).json;
    expect(worker["may"]).toContainEqual(expect.stringContaining("start no agents"));
  });

  it("what it lists is what the access decision allows", async () => {
    const { get, host, tokenOf } = await start();
    const { operations } = (await get("/whoami", tokenOf("worker_1"))).json as { operations: string[] };
    const principal: Principal = {
      kind: "agent",
      id: "agent:worker_1",
      agentId: "worker_1",
      runId: "run-of-worker_1",
    };
    const all = ((await get("/whoami")).json as { operations: string[] }).operations;
    for (const name of all) {
      const answer = await problem(host.dispatch(name, {}, principal));
      const refused = answer instanceof OpenStarryError && answer.code === "forbidden";
      expect([name, refused]).toEqual([name, !operations.includes(name)]);
    }
  });
});

describe("acting on the daemon as a whole", () => {
  it("POST /daemon/stop hands the wish on, and answers 202", async () => {
    const seen: unknown[] = [];
    const { post } = await start({
      control: {
        stop: async (how) => {
          seen.push(how);
        },
      },
    });
    expect(await post("/daemon/stop")).toMatchObject({ status: 202, json: { state: "stopping" } });
    expect((await post("/daemon/stop", { agents: "keep" })).status).toBe(202);
    expect((await post("/daemon/stop", { agents: "eat" })).status).toBe(400);
    expect(seen).toEqual([{ actor: "operator" }, { agents: "keep", actor: "operator" }]);
  });

  it("POST /daemon/restart tells when no successor could start", async () => {
    const { post } = await start({
      control: {
        restart: () =>
          Promise.reject(new OpenStarryError("config_invalid", { detail: "line 3", hint: "mend it" })),
      },
    });
    expect(await post("/daemon/restart")).toMatchObject({
      status: 422,
      json: { code: "config_invalid", detail: "line 3", hint: "mend it" },
    });
  });

  it("POST /daemon/restart and /daemon/reload answer what was done", async () => {
    const changes = { applied: ["agents: added x"], needs_restart: ["plugins"] };
    const { post } = await start({ control: { restart: async () => {}, reload: async () => changes } });
    expect(await post("/daemon/restart")).toMatchObject({ status: 202, json: { state: "restarting" } });
    expect(await post("/daemon/reload")).toMatchObject({ status: 200, json: changes });
  });

  it.each(["stop", "restart", "reload"])("POST /daemon/%s is the operator's", async (verb) => {
    const { post, tokenOf } = await start();
    const answer = await post(`/daemon/${verb}`, {}, tokenOf("master"));
    expect(answer).toMatchObject({ status: 403, json: { code: "forbidden" } });
    expect(answer.json["hint"]).toMatch(/ask the person who runs this daemon/);
  });
});
