import { afterEach, expect, test } from "vitest";
import { z } from "zod";
import { type ConfiguredPlugin, definePlugin } from "../../../../core/index.js";
import masterFirst from "../../../../plugins/start-gate-master-first/index.js";
import { memoryJournalState, memorySpawner } from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../../contract/test-kernel.js";

const kernels: TestKernel[] = [];

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

async function started(options: TestKernelOptions, ...plugins: ConfiguredPlugin[]): Promise<TestKernel> {
  const kernel = createTestKernel({ ...options, plugins: [masterFirst(), ...plugins] });
  kernels.push(kernel);
  await kernel.start();
  return kernel;
}

const templates = { Master: { requires: ["agent:store"] }, Plain: {} };
const config = {
  agents: [
    { agent_id: "master", template_id: "Master" },
    { agent_id: "other", template_id: "Plain" },
    { agent_id: "store", template_id: "Plain" },
  ],
};
const ids = config.agents.map(({ agent_id }) => agent_id);

test("what the master requires starts first, then the master, then the others", async () => {
  const options = { templates, config, state: memoryJournalState(), spawner: memorySpawner() };
  const orders: string[][] = [];
  for (const how of ["new", "from their records"]) {
    const kernel = await started(options);
    await Promise.all(ids.map((id) => kernel.agents.wait(id, "ready")));
    orders.push(options.spawner.runs.splice(0).map(({ spec }) => spec.agentId));
    expect([how, orders.at(-1)]).toEqual([how, ["store", "master", "other"]]);
    await kernel.stop({ agents: "stop", reason: "over" });
  }
});

test("an agent waits while the master is being started, and says so; a service does not wait", async () => {
  let letGo = () => {};
  const held = new Promise<void>((resolve) => (letGo = resolve));
  const slowMaster = definePlugin({
    name: "slow-master",
    apiVersion: 1,
    options: z.strictObject({}),
    setup(ctx) {
      ctx.hooks.beforeSpawn.tap("hold the master", async (spec) => {
        if (spec.agentId === "master") await held;
        return spec;
      });
      return {
        async start() {
          await ctx.services.ensure("helper", { template: { command: "/bin/true" } });
        },
      };
    },
  });
  const kernel = await started({ templates, config }, slowMaster());
  await kernel.agents.wait("svc:helper", "ready");
  await kernel.agents.wait("store", "ready");
  const other = await kernel.agents.wait("other", "launched");
  expect(other).toMatchObject({ state: "pending", reason: "waits for agent:master, which is started first" });
  letGo();
  expect(await kernel.agents.wait("other", "ready")).toMatchObject({ state: "running" });
});
