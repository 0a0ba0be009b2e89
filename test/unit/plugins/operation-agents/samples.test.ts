import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { type Agent, definePlugin, type Principal, type Sampler, sampler } from "../../../../core/index.js";
import operationAgents from "../../../../plugins/operation-agents/index.js";
import operationDaemon from "../../../../plugins/operation-daemon/index.js";
import samplerRunner from "../../../../plugins/sampler-runner/index.js";
import { allowAll } from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel } from "../../../contract/test-kernel.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";

const OPERATOR: Principal = { kind: "operator", id: "operator" };
const operator = { actor: "operator", reason: "a test" };
const kernels: TestKernel[] = [];

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

/** A kernel whose sampler finds every run a little larger at each tick of a second. */
async function started(proportionalMemory?: Sampler["proportionalMemory"]) {
  const clock = createFakeClock();
  let tick = 0;
  const growing = definePlugin({
    name: "growing-sampler",
    apiVersion: 1,
    provides: [sampler],
    options: z.strictObject({}),
    setup: (ctx) =>
      ctx.provide(sampler, {
        name: "growing",
        intervalMs: 1_000,
        async sample(runs) {
          if (runs.length > 0) tick += 1;
          const figures = { cpu_percent: 10, cpu_ms: tick * 100, memory_bytes: tick * 1_000, processes: 1 };
          return new Map(runs.map(({ run_id }) => [run_id, figures]));
        },
        ...(proportionalMemory ? { proportionalMemory } : {}),
      }),
  });
  const kernel = createTestKernel({
    authorizer: allowAll,
    clock,
    plugins: [growing(), samplerRunner(), operationAgents(), operationDaemon()],
  });
  kernels.push(kernel);
  await kernel.start();
  const ask = <T>(name: string, input: object, as: Principal = OPERATOR) =>
    kernel.dispatch(name, input, as) as Promise<T>;
  const samples = async (input: object = {}) => {
    const { items } = await ask<{ items: { run_id: string; memory_bytes: number; sampled_at: string }[] }>(
      "agents.samples",
      { agent_id: "a", ...input },
    );
    return items;
  };
  await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
  return { kernel, clock, ask, samples };
}

describe("agents.samples", () => {
  it("answers what was measured, oldest first", async () => {
    const { kernel, clock, samples } = await started();
    expect(await samples()).toEqual([]);
    await clock.advance(2_000);
    const run_id = kernel.agents.get("a")?.run_id;
    expect(await samples()).toEqual([
      { sampled_at: "2026-01-01T00:00:01.000Z", run_id, cpu_percent: 10, memory_bytes: 1_000, processes: 1 },
      { sampled_at: "2026-01-01T00:00:02.000Z", run_id, cpu_percent: 10, memory_bytes: 2_000, processes: 1 },
    ]);
  });

  it("takes a time or a duration for since, and tells several as one where asked", async () => {
    const { clock, samples } = await started();
    await clock.advance(10_000);
    const memory = async (input: object) => (await samples(input)).map(({ memory_bytes }) => memory_bytes);
    expect(await memory({ since: "2s" })).toEqual([8_000, 9_000, 10_000]);
    expect(await memory({ since: "2026-01-01T00:00:09Z" })).toEqual([9_000, 10_000]);
    expect(await memory({ points: 2 })).toEqual([5_000, 10_000]);
    await expect(samples({ since: "yesterday" })).rejects.toMatchObject({ code: "input_invalid" });
    await expect(samples({ points: 0 })).rejects.toMatchObject({ code: "input_invalid" });
  });

  it("keeps the curve before the end of a run, until the agent is forgotten", async () => {
    const { kernel, clock, samples } = await started();
    await clock.advance(3_000);
    kernel.spawner.run("a").end({ kind: "exited", code: 0 });
    await kernel.agents.wait("a", "ended");
    await clock.advance(3_000);
    expect(await samples()).toHaveLength(3);
    await kernel.control.start("a", operator);
    await clock.advance(1_000);
    expect(new Set((await samples()).map(({ run_id }) => run_id)).size).toBe(2);
    await kernel.control.remove("a", operator);
    await clock.advance(0);
    await expect(samples()).rejects.toMatchObject({ code: "agent_not_found" });
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    expect(await samples()).toEqual([]);
  });
});

describe("agents.get with pss", () => {
  it("tells what is shared once, measured when it is asked for", async () => {
    const asked: unknown[] = [];
    const { kernel, clock, ask } = await started(async (processes) => {
      asked.push(processes);
      return 777;
    });
    expect((await ask<Agent>("agents.get", { agent_id: "a", pss: true })).resources).toBeUndefined();
    await clock.advance(1_000);
    expect((await ask<Agent>("agents.get", { agent_id: "a" })).resources?.pss_bytes).toBeUndefined();
    expect(asked).toEqual([]);
    const { resources } = await ask<Agent>("agents.get", { agent_id: "a", pss: true });
    expect(resources).toMatchObject({ memory_bytes: 1_000, pss_bytes: 777 });
    expect(asked).toEqual([[{ pid: kernel.agents.get("a")?.pid, start_ticks: 0 }]]);
  });

  it.each([
    ["cannot tell", undefined],
    ["may not look", async () => undefined],
    ["fails", () => Promise.reject(new Error("no more descriptors"))],
  ])("answers the agent without it where the sampler %s", async (_, measure) => {
    const { clock, ask } = await started(measure);
    await clock.advance(1_000);
    const { resources } = await ask<Agent>("agents.get", { agent_id: "a", pss: true });
    expect(resources?.memory_bytes).toBe(1_000);
    expect(resources).not.toHaveProperty("pss_bytes");
  });
});

describe("GET /metrics", () => {
  const agent: Principal = { kind: "agent", id: "agent:a", agentId: "a", runId: "r" };

  it("has what each agent uses, by its id, for all but agents", async () => {
    const { clock, ask } = await started();
    expect(await ask<string>("daemon.metrics", {})).not.toContain("openstarry_agent_processes");
    await clock.advance(2_000);
    const text = await ask<string>("daemon.metrics", {});
    expect(text).toContain('openstarry_agent_cpu_percent{agent_id="a"} 10\n');
    expect(text).toContain("# TYPE openstarry_agent_cpu_seconds_total counter\n");
    expect(text).toContain('openstarry_agent_cpu_seconds_total{agent_id="a"} 0.2\n');
    expect(text).toContain('openstarry_agent_resident_memory_bytes{agent_id="a"} 2000\n');
    expect(text).toContain('openstarry_agent_processes{agent_id="a"} 1\n');
    expect(await ask<string>("daemon.metrics", {}, agent)).not.toContain("agent_id=");
  });
});
