import { expect, test } from "vitest";
import { checkConfigAgents } from "../../../../core/agents/config-agents.js";
import { configSchema } from "../../../../core/config/define-config.js";
import { OpenStarryError } from "../../../../core/contracts/errors.js";

const { agents } = configSchema.parse({
  agents: ["good", "known", "bad", "worse"].map((agent_id) => ({ agent_id, template_id: "T" })),
});

async function check(bad: readonly string[], file?: string) {
  const asked: string[] = [];
  await checkConfigAgents({
    agents,
    file,
    isKnown: (id) => id === "known",
    async check({ agent_id }) {
      asked.push(agent_id);
      if (!bad.includes(agent_id)) return;
      throw new OpenStarryError("env_missing", { detail: `${agent_id} lacks K`, hint: "set K" });
    },
  });
  return asked;
}

test("asks about those that are to be made", async () => {
  expect(await check([])).toEqual(["good", "bad", "worse"]);
  expect(await check(["known"])).toEqual(["good", "bad", "worse"]);
});

test("one mistake keeps its code, and is told with file and place", async () => {
  await expect(check(["bad"], "/etc/c.json")).rejects.toMatchObject({
    ...{ code: "env_missing", message: "config /etc/c.json: agents[2] (bad): bad lacks K", hint: "set K" },
  });
  await expect(check(["bad"])).rejects.toMatchObject({ message: "agents[2] (bad): bad lacks K" });
});

test("several are one error that names every one", async () => {
  await expect(check(["bad", "worse"], "/etc/c.json")).rejects.toMatchObject({
    code: "config_invalid",
    message:
      "config /etc/c.json: agents[2] (bad): bad lacks K (set K); agents[3] (worse): worse lacks K (set K)",
  });
});
