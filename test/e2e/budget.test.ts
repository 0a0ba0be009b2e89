import { afterEach, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { agentWhen, crash } from "../helpers/crash.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { processesOfAgent } from "../helpers/processes.js";

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

test("a used-up budget is acted on by the next daemon, against an agent that heeds no polite stop", async () => {
  const template = (template_id: string, tokens: number) => ({
    template_id,
    ...fixtureAgent("spends.mjs", String(tokens)),
    budget: { tokens_max: 1000 },
    restart: { policy: "always", backoff: { min: "10ms" } },
    stop: { grace: "300ms" },
  });
  const it = await startDaemon({
    templates: [template("Spends", 1000), template("Saves", 999)],
    config: { plugins: [["policy-budget", { grace: "2s" }]] },
  });
  daemon = it;
  await it.client.agents.create({ agent_id: "saves", template_id: "Saves" });
  await it.client.agents.create({ agent_id: "spends", template_id: "Spends" });
  await agentWhen(it, "saves", ({ spent }) => spent?.input_tokens === 999);
  const before = await agentWhen(it, "spends", ({ reason }) => reason !== undefined);
  expect(before).toMatchObject({
    state: "running",
    spent: { input_tokens: 1000 },
    reason: expect.stringMatching(/; it is stopped at \d{4}-[\d-]+T[\d:.]+Z$/),
  });
  await crash(it);

  await it.start();
  const stopped = await agentWhen(it, "spends", ({ state }) => state === "stopped");
  expect(stopped).toMatchObject({
    spent: { input_tokens: 1000 },
    last_exit: { run_id: before.run_id, signal: "SIGKILL", cause: "policy", actor: "plugin:policy-budget" },
  });
  expect(processesOfAgent(it.home, "spends")).toEqual([]);
  expect(await it.client.agents.get("saves")).toMatchObject({ state: "running", restarts: 0 });
});
