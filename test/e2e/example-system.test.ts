import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { lockHolder } from "../../bin/daemon/lock.js";
import { type Client, createClient } from "../../plugins/agent-manager-tool/client/client.js";
import { runCli } from "../helpers/daemon.js";
import { type FakeModel, startFakeModel } from "../helpers/fake-model.js";
import { waitFor } from "../helpers/wait-for.js";

const CONFIG = fileURLToPath(new URL("../../openstarry.config.ts", import.meta.url));
const LONG = { timeoutMs: 30_000 };

let home: string;
let client: Client;
let model: FakeModel | undefined;

afterEach(async () => {
  await client.daemon.stop({ agents: "stop" }).catch(() => {});
  await waitFor(() => lockHolder(home) === undefined, { ...LONG, what: "the daemon's end" });
  client.close();
  await model?.close();
  model = undefined;
  rmSync(home, { recursive: true, force: true, maxRetries: 5 });
});

/** The config of this repository, on a home and a port of the test's own. */
async function startExample(env: Record<string, string> = {}) {
  home = mkdtempSync(join(tmpdir(), "openstarry-example-"));
  client = createClient({ home });
  const started = await runCli(["start", "--config", CONFIG, "--port", "0", "--home", home], {
    env: { OPENAI_BASE_URL: "", OPENAI_API_KEY: "", ...env },
  });
  if (started.code !== 0) throw new Error(`start: exit ${started.code}\n${started.stderr}`);
}

async function output(agentId: string): Promise<string> {
  const { items } = await client.agents.logs(agentId, { tail: 1_000 });
  return items.map(({ text }) => text).join("\n");
}

async function masterSays(words: string): Promise<string> {
  return waitFor(
    async () => {
      const said = await output("master");
      return said.includes(words) && said;
    },
    { ...LONG, what: `the master to say "${words}"`, diagnose: () => output("master") },
  );
}

describe("the example system", () => {
  it("has two workers analyse real data by a fixed plan, and its master stay", async () => {
    await startExample();
    const said = await masterSays("done; standing by");
    expect(said).toContain("a fixed plan is followed");
    expect(said).toContain("weather.csv: 2922 rows");
    expect(said).toContain("temp_max and temp_min rise together (r = 0.93)");
    expect(said).toContain("airports.csv: 3376 rows");
    expect(said).toContain("state: 12 of 3376 values are missing");
    const analyses = new Map<string, { rows: number }>();
    for await (const { key, value } of client.state.list("shared", { prefix: "analyses/" })) {
      analyses.set(key, value as { rows: number });
    }
    expect([...analyses.keys()]).toEqual(["analyses/airports.csv", "analyses/weather.csv"]);
    expect(analyses.get("analyses/weather.csv")?.rows).toBe(2_922);

    const { items } = await client.agents.list();
    expect(items.map(({ agent_id }) => agent_id)).toEqual(["master"]);
    expect(items[0]).toMatchObject({ state: "running", restarts: 0, status: "done, standing by" });

    const events = [];
    for await (const event of client.events({ lastEventId: 0, signal: AbortSignal.timeout(20_000) })) {
      if (event.type === "gap") throw new Error("the journal is too short for this test");
      events.push(event);
      if (event.type === "agent.deleted" && event.agent_id === "airports_analyst") break;
    }
    const created = events.filter(
      (event) => event.type === "agent.created" && event.data.actor !== "plugin:bus-mqtt",
    );
    expect(created.map(({ agent_id, data }) => [agent_id, (data as { actor?: string }).actor])).toEqual([
      ["master", "config"],
      ["weather_analyst", "agent:master"],
      ["airports_analyst", "agent:master"],
    ]);
    // Both worked at the same time: the second was created before the first was over.
    const order = events.map(({ type, agent_id }) => `${type} ${agent_id}`);
    expect(order.indexOf("agent.created airports_analyst")).toBeLessThan(
      order.indexOf("agent.exited weather_analyst"),
    );
  });

  it("brings a killed master back, which takes over or replaces the workers that are there", async () => {
    await startExample();
    await masterSays("done; standing by");
    const before = await client.agents.get("master");
    // Left over from a master that died: one that has done its work, and one that has failed.
    const leftOver = { template_id: "DataAnalystAgent_v1", labels: { left: "over" } };
    const environ = readFileSync(`/proc/${before.pid}/environ`, "utf8").split("\0");
    const tokenFile = environ.find((it) => it.startsWith("OPENSTARRY_TOKEN_FILE="))?.split("=")[1];
    const asMaster = createClient({ socket: await socketOf(home), tokenFile });
    await asMaster.agents.create({
      ...leftOver,
      agent_id: "weather_analyst",
      params: { file: "data/weather.csv", group_by: "location" },
    });
    await asMaster.agents.create({
      ...leftOver,
      agent_id: "airports_analyst",
      params: { file: "data/none.csv" },
    });
    await asMaster.agents.wait("airports_analyst", { for: "ended", timeoutMs: 20_000 });
    asMaster.close();

    process.kill(before.pid ?? 0, "SIGKILL");
    const said = await waitFor(
      async () => {
        const agent = await client.agents.get("master");
        const isDone = agent.state === "running" && agent.status === "done, standing by";
        return isDone && agent.pid !== before.pid && (await output("master"));
      },
      { ...LONG, what: "the new master to be done", diagnose: () => output("master") },
    );
    expect(said).toMatch(/weather_analyst already exists \(\w+\); using it/);
    expect(said).toContain("airports_analyst already exists (exited); replacing it");
    expect(said).toContain("weather.csv: 2922 rows");
    expect(said).toContain("airports.csv: 3376 rows");
    expect(await client.agents.get("master")).toMatchObject({ state: "running", restarts: 1 });
    expect((await client.agents.list()).items).toHaveLength(1);
  });

  it("lets a model choose the tool calls, at any endpoint that speaks OpenAI's API", async () => {
    const key = "sk-not-a-real-key";
    const worker = { template_id: "DataAnalystAgent_v1", params: { file: "data/weather.csv" } };
    model = await startFakeModel(key, (answers, step) => {
      if (step === 1) return { calls: [["agent_templates", {}]] };
      if (step === 2) {
        const ids = ["worker_a", "worker_b"];
        return { calls: ids.map((agent_id) => ["agent_start", { ...worker, agent_id }]) };
      }
      if (step === 3) return { calls: [["agent_wait", { agent_ids: ["worker_a", "worker_b"] }]] };
      if (step === 4) return { calls: [["agent_result", { agent_id: "worker_b" }]] };
      if (step === 5) {
        const [{ data }] = answers as [{ data: { result: { rows: number } } }];
        return { calls: [["agent_stop", { agent_id: `rows_${data.result.rows}` }]] };
      }
      if (step === 6) {
        const ids = ["worker_a", "worker_b"];
        return { calls: ids.map((agent_id) => ["agent_stop", { agent_id, remove: true }]) };
      }
      return { say: `all done: ${answers.map(({ ok }) => ok).join(", ")}` };
    });
    await startExample({ OPENAI_BASE_URL: model.url, OPENAI_API_KEY: key, OPENAI_MODEL: "scripted-1" });
    const said = await masterSays("done; standing by");
    expect(said).toContain("a model chooses what to do (scripted-1)");
    expect(said).toContain('agent_start {"template_id":"DataAnalystAgent_v1"');
    // The result of the worker came back to the model, and so did the refusal of what it made of it.
    expect(said).toContain('agent_stop {"agent_id":"rows_2922"} -> forbidden');
    expect(said).toContain("report: all done: true, true");
    expect(said).not.toContain(key);

    expect(model.requests).toHaveLength(7);
    const [first] = model.requests;
    expect(first).toMatchObject({ model: "scripted-1", messages: [{ role: "system" }, { role: "user" }] });
    expect(first?.messages[1]?.content).toContain("data/weather.csv by location");
    expect(first?.tools.map((it) => it.function.name)).toContain("agent_start");
    expect((await client.agents.list()).items.map(({ agent_id }) => agent_id)).toEqual(["master"]);
  });

  it("has an agent in Python that does the same with the standard library alone", async ({ skip }) => {
    await startExample();
    const started = await client.agents
      .create({ agent_id: "py", template_id: "PythonDelegate_v1", params: { file: "data/airports.csv" } })
      .catch((error) => error);
    const required = process.env["CI_REQUIRE_SERVICES"] === "1";
    if (started.code === "command_not_found" && !required) skip("there is no python3 here");
    await client.agents.wait("py", { for: "ended", timeoutMs: 30_000 });
    const { result, exit } = await client.agents.result("py");
    expect(exit).toMatchObject({ kind: "exited", code: 0 });
    expect(JSON.parse(result)).toContain("state: 12 of 3376 values are missing");
  });
});

async function socketOf(folder: string): Promise<string> {
  return JSON.parse(readFileSync(join(folder, "daemon.json"), "utf8")).socket;
}
