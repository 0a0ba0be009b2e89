import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  type ConfiguredPlugin,
  definePlugin,
  type ResourceFigures,
  type ResourceSample,
  type SampledRun,
  type Sampler,
  sampler,
  spawner as spawnerSlot,
} from "../../../../core/index.js";
import samplerRunner from "../../../../plugins/sampler-runner/index.js";
import { memoryJournalState, memorySpawner } from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../../contract/test-kernel.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";

const operator = { actor: "operator", reason: "a test" };
const figures: ResourceFigures = { cpu_percent: 12, cpu_ms: 340, memory_bytes: 5_000, processes: 1 };
const kernels: TestKernel[] = [];

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

/** A kernel with this sampler, a clock that stands still, and what `onResourceSample` was told. */
async function started(
  sample: Sampler["sample"],
  options: TestKernelOptions & { intervalMs?: number; timeout?: string } = {},
) {
  const clock = createFakeClock();
  const batches: (readonly ResourceSample[])[] = [];
  const samplerPlugin = definePlugin({
    name: "fixture-sampler",
    apiVersion: 1,
    provides: [sampler],
    options: z.strictObject({}),
    setup(ctx) {
      ctx.provide(sampler, { name: "fixture", intervalMs: options.intervalMs ?? 1_000, sample });
      ctx.hooks.onResourceSample.tap("listen", ({ samples }) => void batches.push(samples));
    },
  });
  const plugins: ConfiguredPlugin[] = [
    samplerPlugin(),
    samplerRunner(options.timeout === undefined ? {} : { timeout: options.timeout }),
    ...(options.plugins ?? []),
  ];
  const kernel = createTestKernel({ ...options, clock, plugins });
  kernels.push(kernel);
  await kernel.start();
  const run = async (agent_id: string) => {
    await kernel.control.create({ agent_id, template_id: "Plain" }, operator);
    return kernel.agents.wait(agent_id, "ready");
  };
  return { kernel, clock, batches, run };
}

/** The same figures for whatever is asked about. */
const always = async (runs: readonly SampledRun[]) => new Map(runs.map(({ run_id }) => [run_id, figures]));

describe("sampler-runner", () => {
  it("shows the figures of every live run, and hands them to the hook in one batch", async () => {
    const asked: (readonly SampledRun[])[] = [];
    const { kernel, clock, batches, run } = await started(async (runs) => {
      asked.push(runs);
      return always(runs);
    });
    const one = await run("one");
    const two = await run("two");
    await clock.advance(1_000);
    expect(asked.at(-1)).toEqual([
      { agent_id: "one", run_id: one.run_id, processes: [{ pid: one.pid, start_ticks: 0 }] },
      { agent_id: "two", run_id: two.run_id, processes: [{ pid: two.pid, start_ticks: 0 }] },
    ]);
    const shown = { ...figures, sampled_at: "2026-01-01T00:00:01.000Z" };
    expect(kernel.agents.get("one")?.resources).toEqual(shown);
    expect(batches).toEqual([
      [
        { agent_id: "one", run_id: one.run_id, ...shown },
        { agent_id: "two", run_id: two.run_id, ...shown },
      ],
    ]);
  });

  it("writes nothing of it to the journal, and shows nothing that an earlier daemon saw", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const first = await started(always, { state, spawner });
    await first.run("a");
    const events = state.events.length;
    await first.clock.advance(3_000);
    expect(first.kernel.agents.get("a")?.resources).toBeDefined();
    expect(state.events).toHaveLength(events);
    expect(state.agents.get("a")?.agent.resources).toBeUndefined();
    // A change of something else takes the record along as it is.
    await first.kernel.control.hold("a", operator);
    expect(state.agents.get("a")?.agent.resources).toBeDefined();
    await first.kernel.stop({ agents: "keep", reason: "the next one takes over" });
    const second = await started(async () => new Map(), { state, spawner });
    expect(second.kernel.agents.get("a")).toMatchObject({ state: "running" });
    expect(second.kernel.agents.get("a")?.resources).toBeUndefined();
  });

  it("measures adopted runs", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const first = await started(always, { state, spawner });
    const { run_id } = await first.run("a");
    await first.kernel.stop({ agents: "keep", reason: "the next one takes over" });
    const second = await started(always, { state, spawner });
    await second.clock.advance(1_000);
    expect(second.batches[0]).toMatchObject([{ agent_id: "a", run_id }]);
    expect(second.kernel.agents.get("a")).toMatchObject({ run_id, resources: figures });
  });

  it("shows no figures of a run that is over, or that ended while it was measured", async () => {
    let answer = () => {};
    const { kernel, clock, batches, run } = await started(async (runs) => {
      if (runs.length > 0) await new Promise<void>((resolve) => (answer = resolve));
      return always(runs);
    });
    await run("a");
    await clock.advance(1_000);
    kernel.spawner.run("a").end({ kind: "exited", code: 0 });
    await kernel.agents.wait("a", "ended");
    answer();
    await clock.advance(0);
    expect(kernel.agents.get("a")?.resources).toBeUndefined();
    expect(batches).toEqual([]);
  });

  it("survives a deletion while it measures", async () => {
    let answer = () => {};
    const { kernel, clock, batches, run } = await started(async (runs) => {
      if (runs.length > 0) await new Promise<void>((resolve) => (answer = resolve));
      return always(runs);
    });
    await run("a");
    await clock.advance(1_000);
    await kernel.control.remove("a", operator);
    await kernel.agents.wait("a", "gone").catch(() => {});
    answer();
    await clock.advance(0);
    expect(kernel.agents.list()).toEqual([]);
    expect(batches).toEqual([]);
  });

  it("leaves a tick out while one is in flight, in the sampler or in a tap", async () => {
    let calls = 0;
    let answer = () => {};
    let release = () => {};
    const slowTap = definePlugin({
      name: "slow",
      apiVersion: 1,
      options: z.strictObject({}),
      setup(ctx) {
        ctx.hooks.onResourceSample.tap("wait", () => new Promise<void>((resolve) => (release = resolve)));
      },
    });
    const { clock, run } = await started(
      async (runs) => {
        if (runs.length === 0) return new Map();
        calls += 1;
        await new Promise<void>((resolve) => (answer = resolve));
        return always(runs);
      },
      { plugins: [slowTap()] },
    );
    await run("a");
    await clock.advance(3_000);
    expect(calls).toBe(1);
    answer();
    await clock.advance(3_000);
    expect(calls).toBe(1);
    release();
    await clock.advance(1_000);
    expect(calls).toBe(2);
  });

  it("takes the figures away and says so when the sampler throws, and goes on once it works", async () => {
    let broken = false;
    const { kernel, clock, run } = await started(async (runs) => {
      if (broken) throw new Error("no more descriptors");
      return always(runs);
    });
    await run("a");
    await clock.advance(1_000);
    broken = true;
    await clock.advance(2_000);
    expect(kernel.status().problems).toEqual(["plugin sampler-runner: sampler fixture: no more descriptors"]);
    expect(kernel.agents.get("a")).toMatchObject({ state: "running" });
    expect(kernel.agents.get("a")?.resources).toBeUndefined();
    broken = false;
    await clock.advance(1_000);
    expect(kernel.status().problems).toEqual([]);
    expect(kernel.agents.get("a")?.resources).toBeDefined();
  });

  it("gives up waiting for a sampler that hangs, and asks again", async () => {
    let hangs = true;
    const { kernel, clock, run } = await started((runs) => (hangs ? new Promise(() => {}) : always(runs)), {
      timeout: "5s",
    });
    await run("a");
    await clock.advance(6_000);
    expect(kernel.status().problems).toEqual([
      "plugin sampler-runner: sampler fixture: it did not answer within 5s",
    ]);
    hangs = false;
    await clock.advance(6_000);
    expect(kernel.status().problems).toEqual([]);
    expect(kernel.agents.get("a")?.resources).toBeDefined();
  });

  it("believes no figure that cannot be one", async () => {
    const { kernel, clock, run } = await started(async (runs) => {
      return new Map(runs.map(({ run_id }) => [run_id, { ...figures, cpu_percent: Number.NaN }]));
    });
    const { run_id } = await run("a");
    await clock.advance(1_000);
    expect(kernel.status().problems).toEqual([
      `plugin sampler-runner: sampler fixture: cpu_percent of run ${run_id} is NaN`,
    ]);
    expect(kernel.agents.get("a")?.resources).toBeUndefined();
  });

  it("measures the runs of the other spawners when one cannot tell its processes", async () => {
    const broken = Object.assign(memorySpawner({ name: "broken" }), {
      processes: () => Promise.reject(new Error("cannot look")),
    });
    const provider = definePlugin({
      name: "broken-spawner",
      apiVersion: 1,
      provides: [spawnerSlot],
      options: z.strictObject({}),
      setup: (ctx) => ctx.provide(spawnerSlot, broken),
    });
    const { kernel, clock, run } = await started(always, {
      plugins: [provider()],
      templates: { Plain: {}, Other: { spawner: "broken" } },
    });
    await run("a");
    await kernel.control.create({ agent_id: "b", template_id: "Other" }, operator);
    await clock.advance(1_000);
    expect(kernel.agents.get("a")?.resources).toBeDefined();
    expect(kernel.agents.get("b")?.resources).toBeUndefined();
    expect(kernel.status().problems).toEqual([
      "plugin sampler-runner: processes of spawner broken: cannot look",
    ]);
  });

  it("refuses an interval that is none", async () => {
    const { kernel, clock } = await started(always, { intervalMs: 0 });
    await clock.advance(1_000);
    expect(kernel.status().problems).toEqual([
      "plugin sampler-runner: sampler fixture: its interval is 0 ms",
    ]);
  });

  it("is not there without a sampler, and nothing else misses it", async () => {
    const clock = createFakeClock();
    const kernel = createTestKernel({ clock, plugins: [samplerRunner()] });
    kernels.push(kernel);
    await kernel.start();
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await clock.advance(10_000);
    expect(kernel.agents.get("a")).toMatchObject({ state: "running" });
    expect(kernel.agents.get("a")?.resources).toBeUndefined();
    expect(kernel.status().problems).toEqual([]);
  });
});
