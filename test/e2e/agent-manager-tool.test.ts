import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type AgentManagerTool,
  createAgentManagerTool,
  type ToolError,
  type ToolResult,
} from "../../plugins/agent-manager-tool/tools/tool.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { waitFor } from "../helpers/wait-for.js";

const IDLE = "setInterval(() => {}, 1000)";
const ANSWER = `
  const { readFileSync, writeFileSync } = require("node:fs");
  const { file } = JSON.parse(readFileSync(process.env.OPENSTARRY_PARAMS_FILE, "utf8"));
  console.log("reading " + file);
  writeFileSync(process.env.OPENSTARRY_RESULT_FILE, JSON.stringify({ words: file.split("/").length }));
`;

let daemon: TestDaemon;
let master: AgentManagerTool;

beforeAll(async () => {
  daemon = await startDaemon({
    templates: [
      { template_id: "Master_v1", command: process.execPath, args: ["-e", IDLE], children: { max: 4 } },
      {
        template_id: "ReportWriter_v1",
        description: "Counts the parts of a path.",
        command: process.execPath,
        args: ["-e", ANSWER],
        params: { file: { type: "string", description: "A path." }, depth: { type: "integer", default: 1 } },
        restart: { policy: "never" },
      },
      { template_id: "Idle_v1", command: process.execPath, args: ["-e", IDLE] },
    ],
    config: {
      agents: [
        { agent_id: "master", template_id: "Master_v1" },
        { agent_id: "stranger", template_id: "Idle_v1" },
      ],
    },
  });
  master = createAgentManagerTool({ env: await environmentOf("master") });
});
afterAll(() => daemon?.stop());

/** What the daemon gave an agent, as the agent itself finds it. */
async function environmentOf(agentId: string): Promise<NodeJS.ProcessEnv> {
  const agent = await daemon.client.agents.wait(agentId, { for: "ready", timeoutMs: 10_000 });
  const pairs = readFileSync(`/proc/${agent.pid}/environ`, "utf8").split("\0").filter(Boolean);
  return Object.fromEntries(
    pairs.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]),
  );
}

type Args = Record<string, unknown>;

/**
 * A model that knows nothing of this system: it acts on the words of hints alone, by patterns that fit
 * any tool. `sheet` is what the person told it about the job.
 */
async function stubbornModel(name: string, firstArgs: Args, sheet: Args) {
  let args = firstArgs;
  const met: string[] = [];
  for (let step = 0; step < 6; step++) {
    const result: ToolResult = await master.execute(name, args);
    if (result.ok) return { args, met, data: result.data };
    met.push(result.error.code);
    args = amend(args, result.error, sheet);
  }
  throw new Error(`it did not recover: ${JSON.stringify(met)}`);
}

function amend(args: Args, { detail, hint }: ToolError, sheet: Args): Args {
  const meant = /did you mean "([^"]+)"/.exec(hint)?.[1];
  const quoted = [...detail.matchAll(/"([^"]+)"/g)].map((match) => match[1]);
  const wrong = Object.entries(args).find(([, value]) => quoted.includes(String(value)));
  if (meant !== undefined && wrong) return { ...args, [wrong[0]]: meant };

  const suggested = /choose another (\w+), such as "([^"]+)"/.exec(hint);
  if (suggested?.[1] !== undefined) return { ...args, [suggested[1]]: suggested[2] };

  const [, place] = /with all of these in (\w+)/.exec(hint) ?? [];
  if (place !== undefined) {
    const required = [...hint.matchAll(/(\w+) \([^)]*, required\)/g)].map((match) => String(match[1]));
    return { ...args, [place]: Object.fromEntries(required.map((param) => [param, sheet[param]])) };
  }

  const own = /it may act on what it started: ([\w.-]+)/.exec(hint)?.[1];
  if (own !== undefined) return { ...args, agent_id: own };
  throw new Error(`nothing in this hint to act on: ${hint}`);
}

describe("a model that goes by the hints alone", () => {
  it("finds the template that it misspelt, and the parameter that it forgot", async () => {
    const start = { template_id: "ReportWritter_v1", agent_id: "writer" };
    const { args, met, data } = await stubbornModel("agent_start", start, { file: "in/a.txt" });
    expect(met).toEqual(["template_not_found", "params_invalid"]);
    expect(args).toEqual({
      template_id: "ReportWriter_v1",
      agent_id: "writer",
      params: { file: "in/a.txt" },
    });
    expect(data).toMatchObject({ agent_id: "writer" });
    expect(await daemon.client.agents.get("writer")).toMatchObject({ parent_id: "master" });
  });

  it("starts the same agent twice, and gets two", async () => {
    const start = { template_id: "Idle_v1", agent_id: "helper" };
    expect((await stubbornModel("agent_start", start, {})).met).toEqual([]);
    const second = await stubbornModel("agent_start", start, {});
    expect(second.met).toEqual(["agent_exists"]);
    expect(second.data).toMatchObject({ agent_id: "helper_2" });
    const pids = await Promise.all(["helper", "helper_2"].map((id) => daemon.client.agents.get(id)));
    expect(new Set(pids.map(({ pid }) => pid)).size).toBe(2);
  });

  it("cannot stop a stranger's agent, and stops one of its own instead", async () => {
    const before = await daemon.client.agents.get("stranger");
    const { met, args } = await stubbornModel("agent_stop", { agent_id: "stranger" }, {});
    expect(met).toEqual(["forbidden"]);
    expect(await daemon.client.agents.get(String(args["agent_id"]))).toMatchObject({ parent_id: "master" });
    expect(await daemon.client.agents.get("stranger")).toMatchObject({ state: "running", pid: before.pid });
  });
});

describe("the tools, from within an agent", () => {
  const ok = async (name: string, args: Args = {}) => {
    const result = await master.execute(name, args);
    if (!result.ok) throw new Error(JSON.stringify(result.error));
    return result.data;
  };

  it("take an agent from its template to its result and away", async () => {
    const { templates } = await ok("agent:templates");
    expect(templates).toContainEqual({
      template_id: "ReportWriter_v1",
      description: "Counts the parts of a path.",
      params: {
        file: { type: "string", description: "A path.", required: true },
        depth: { type: "integer", default: 1 },
      },
    });
    await ok("agent:start", { template_id: "ReportWriter_v1", agent_id: "one", params: { file: "a/b/c" } });
    const waited = await ok("agent:wait", { agent_ids: ["one"], timeout: "20s" });
    expect(waited).toMatchObject({ done: true, agents: [{ agent_id: "one", state: "exited", ended: true }] });
    expect(await ok("agent:result", { agent_id: "one" })).toMatchObject({
      agent_id: "one",
      result: { words: 3 },
    });
    expect(await ok("agent:logs", { agent_id: "one" })).toMatchObject({ lines: ["reading a/b/c"] });
    expect(await ok("agent:status", { agent_id: "one" })).toMatchObject({
      last_exit: { code: 0, success: true },
    });
    expect(await ok("agent:why", { agent_id: "one" })).toMatchObject({
      summary: expect.stringContaining("exited with code 0"),
      hint: "read its result: agent_result; then delete it: agent_stop with remove: true",
    });
    expect(await ok("agent:stop", { agent_id: "one", remove: true })).toMatchObject({ removed: true });
    const ids = ((await ok("agent:list")) as { agents: { agent_id: string }[] }).agents.map(
      (it) => it.agent_id,
    );
    expect(ids).toContain("master");
    expect(ids).not.toContain("one");
    expect(ids).not.toContain("stranger");
  });

  it("restart an agent with a new process, and end one for good", async () => {
    await ok("agent:start", { template_id: "Idle_v1", agent_id: "again", wait_until: "ready" });
    const before = await ok("agent:status", { agent_id: "again" });
    const after = await ok("agent:restart", { agent_id: "again" });
    expect(after).toMatchObject({ state: "running" });
    expect(after["pid"]).not.toBe(before["pid"]);
    expect(await ok("agent:stop", { agent_id: "again", grace: "2s" })).toMatchObject({ state: "stopped" });
    expect(() => process.kill(Number(after["pid"]), 0)).toThrow("ESRCH");
    const restarted = await ok("agent:restart", { agent_id: "again" });
    expect(restarted).toMatchObject({ state: "running" });
    await ok("agent:stop", { agent_id: "again", remove: true });
  });

  it("keep an agent's wait going while the daemon is replaced by a new one", async () => {
    await ok("agent:start", { template_id: "Idle_v1", agent_id: "patient" });
    const waiting = master.execute("agent:wait", { agent_ids: ["patient"], timeout: "30s" });
    process.kill(daemon.pid() ?? 0, "SIGKILL");
    await waitFor(() => daemon.pid() === undefined, { what: "the daemon's end" });
    await daemon.start();
    await daemon.client.agents.stop("patient");
    expect(await waiting).toMatchObject({ ok: true, data: { done: true, agents: [{ state: "stopped" }] } });
  });
});

describe("GET /tools", () => {
  it("tells the definitions in every format, and refuses others", async () => {
    const { OPENSTARRY_API_URL: url, OPENSTARRY_TOKEN_FILE: tokenFile } = await environmentOf("master");
    const headers = { authorization: `Bearer ${readFileSync(tokenFile ?? "", "utf8").trim()}` };
    const items = async (format: string) => {
      const response = await fetch(`${url}/tools?format=${format}`, { headers });
      return ((await response.json()) as { items: unknown }).items;
    };
    expect(await items("openai")).toEqual(master.openAiTools());
    expect(await items("anthropic")).toEqual(master.anthropicTools());
    expect(await items("mcp")).toEqual(master.mcpTools());
    expect(await items("openstarry")).toHaveLength(master.openAiTools().length);
    expect((await fetch(`${url}/tools?format=other`, { headers })).status).toBe(400);
    expect((await fetch(`${url}/tools`)).status).toBe(401);
  });
});
