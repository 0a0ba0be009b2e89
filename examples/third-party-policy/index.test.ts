import assert from "node:assert/strict";
import { test } from "node:test";
import { definePlugin, sampler } from "openstarry-daemon";
import { createTestKernel } from "openstarry-daemon/testing";
import { z } from "zod";
import teamMemory from "./index.js";

const me = { actor: "operator", reason: "a test" };

/** Measures every hundredth of a second that an agent uses what its label says. */
const scales = definePlugin({
  name: "scales",
  apiVersion: 1,
  provides: [sampler],
  options: z.strictObject({}),
  setup(ctx) {
    const bytesOf = (agentId: string) => Number(ctx.agents.get(agentId)?.labels["mib"]) * 2 ** 20;
    const figures = { cpu_percent: 0, cpu_ms: 0, processes: 1 };
    ctx.provide(sampler, {
      name: "scales",
      intervalMs: 10,
      sample: async (runs) =>
        new Map(runs.map((run) => [run.run_id, { ...figures, memory_bytes: bytesOf(run.agent_id) }])),
    });
  },
});

test("the largest of a team that uses too much is stopped, and nobody else", async () => {
  const kernel = createTestKernel({ plugins: [scales(), teamMemory({ memory_max: "100MiB" })] });
  await kernel.start();
  const start = (agent_id: string, team: string, mib: string) =>
    kernel.control.create({ agent_id, template_id: "Plain", labels: { team, mib } }, me);
  await start("alone", "blue", "90");
  await start("small", "red", "40");
  await start("large", "red", "70");

  const { state, last_exit } = await kernel.agents.wait("large", "ended");
  assert.equal(state, "stopped");
  assert.deepEqual([last_exit?.cause, last_exit?.actor], ["policy", "plugin:team-memory"]);
  assert.match(last_exit?.reason ?? "", /team red uses 110MiB, over 100MiB; 70MiB of it is this one's/);
  for (const id of ["alone", "small"]) assert.equal(kernel.agents.get(id)?.state, "running");
  await kernel.stop({ agents: "stop", reason: "the test is over" });
});
