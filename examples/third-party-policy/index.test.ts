import assert from "node:assert/strict";
import { test } from "node:test";
import type { Resources } from "openstarry-daemon";
import { createTestKernel } from "openstarry-daemon/testing";
import teamMemory from "./index.js";

const me = { actor: "operator", reason: "a test" };

test("the largest of a team that uses too much is stopped, and nobody else", async () => {
  const kernel = createTestKernel({ plugins: [teamMemory({ memory_max: "100MiB" })] });
  await kernel.start();
  const figures = { cpu_percent: 0, cpu_ms: 0, processes: 1, sampled_at: new Date().toISOString() };
  const measured = new Map<string, Resources>();
  const start = async (agent_id: string, team: string, mib: number) => {
    await kernel.control.create({ agent_id, template_id: "Plain", labels: { team } }, me);
    const { run_id = "" } = await kernel.agents.wait(agent_id, "ready");
    measured.set(run_id, { ...figures, memory_bytes: mib * 2 ** 20 });
  };
  await start("alone", "blue", 90);
  await start("small", "red", 40);
  await start("large", "red", 70);
  await kernel.reports.resources(measured);

  const { state, last_exit } = await kernel.agents.wait("large", "ended");
  assert.equal(state, "stopped");
  assert.deepEqual([last_exit?.cause, last_exit?.actor], ["policy", "plugin:team-memory"]);
  assert.match(last_exit?.reason ?? "", /team red uses 110MiB, over 100MiB; 70MiB of it is this one's/);
  for (const id of ["alone", "small"]) assert.equal(kernel.agents.get(id)?.state, "running");
  await kernel.stop({ agents: "stop", reason: "the test is over" });
});
