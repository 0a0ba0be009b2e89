import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  definePlugin,
  type ResourceFigures,
  type Sampler,
  sampler,
  type TemplateInput,
} from "../../../../core/index.js";
import resourcePolicy from "../../../../plugins/policy-resources/index.js";
import samplerRunner from "../../../../plugins/sampler-runner/index.js";
import { memorySpawner } from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel } from "../../../contract/test-kernel.js";
import { createFakeClock, type FakeClock } from "../../../helpers/fake-clock.js";

const MIB = 2 ** 20;
const SECOND = 1_000;
const operator = { actor: "operator", reason: "a test" };
const kernels: TestKernel[] = [];

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

interface Subject {
  kernel: TestKernel;
  clock: FakeClock;
  /** What the agent is measured to use from now on; `cpu_ms` follows from `cpu_percent`. */
  uses(figures: Partial<ResourceFigures>): void;
  /** Seconds, with a sample in each. */
  samples(count: number): Promise<void>;
  /** What was told of limits: limit, action, and the figures. */
  told(): string[];
}

async function started(
  resources: TemplateInput["resources"],
  { options = {}, holds = false, more = {} }: { options?: object; holds?: boolean; more?: object } = {},
): Promise<Subject> {
  const clock = createFakeClock();
  let now: ResourceFigures = { cpu_percent: 0, cpu_ms: 0, memory_bytes: 0, processes: 1 };
  const sample: Sampler["sample"] = async (runs) => {
    now = { ...now, cpu_ms: now.cpu_ms + now.cpu_percent * 10 };
    return new Map(runs.map(({ run_id }) => [run_id, now]));
  };
  const measures = definePlugin({
    name: "fixture-sampler",
    apiVersion: 1,
    provides: [sampler],
    options: z.strictObject({}),
    setup: (ctx) => ctx.provide(sampler, { name: "fixture", intervalMs: SECOND, sample }),
  });
  const kernel = createTestKernel({
    clock,
    plugins: [measures(), samplerRunner(), resourcePolicy(options)],
    spawner: memorySpawner({ holds }),
    templates: {
      T: { resources, restart: { policy: "on-failure", backoff: { min: "0s" } }, ...more },
      Child: {},
    },
  });
  kernels.push(kernel);
  await kernel.start();
  await kernel.control.create({ agent_id: "a", template_id: "T" }, operator);
  await kernel.agents.wait("a", "settled");
  return {
    kernel,
    clock,
    uses(figures) {
      now = { ...now, ...figures };
    },
    samples: (count) => clock.advance(count * SECOND),
    told: () =>
      kernel.state.events
        .filter((event) => event.type === "agent.limit")
        .map(({ data }) => `${data.action}: ${data.reason}`),
  };
}

const stateOf = ({ kernel }: Subject) => kernel.agents.get("a")?.state;
const causeOf = ({ kernel }: Subject) => kernel.agents.get("a")?.last_exit?.cause;

describe("memory_max", () => {
  it("acts at the first sample over it: a failure, which the restart rules decide about", async () => {
    const it = await started({ memory_max: "100MiB" });
    const runId = it.kernel.agents.get("a")?.run_id;
    it.uses({ memory_bytes: 100 * MIB });
    await it.samples(5);
    expect([it.told(), stateOf(it)]).toEqual([[], "running"]);
    it.uses({ memory_bytes: 120 * MIB });
    await it.samples(1);
    const reason = "memory 120MiB over memory_max 100MiB";
    expect(it.told()).toEqual([`restart: ${reason}`]);
    const agent = it.kernel.agents.get("a");
    expect(agent?.last_exit).toMatchObject({
      cause: "policy",
      actor: "plugin:policy-resources",
      run_id: runId,
    });
    expect(agent?.last_exit?.reason).toContain(reason);
    expect(agent?.run_id).not.toBe(runId);
    expect(agent?.restarts).toBe(1);
  });

  it("a leak that is restarted for ever runs into the restart intensity", async () => {
    const it = await started(
      { memory_max: "100MiB" },
      { more: { restart: { max_restarts: 3, backoff: { min: "0s" } } } },
    );
    it.uses({ memory_bytes: 120 * MIB });
    await it.samples(10);
    expect([stateOf(it), it.told().length]).toEqual(["failed", 4]);
  });

  it("is told once, and again after it fell below nine tenths", async () => {
    const it = await started({ memory_max: "100MiB", on_exceed: "warn" });
    for (const mib of [101, 150, 95, 101, 89, 101, 102]) {
      it.uses({ memory_bytes: mib * MIB });
      await it.samples(1);
    }
    const words = "warn: memory 101MiB over memory_max 100MiB";
    expect(it.told()).toEqual([words, words]);
    expect(stateOf(it)).toBe("running");
  });

  it("is left to the kernel where that holds it", async () => {
    const it = await started({ memory_max: "100MiB" }, { holds: true });
    it.uses({ memory_bytes: 500 * MIB });
    await it.samples(5);
    expect([it.told(), stateOf(it)]).toEqual([[], "running"]);
  });

  it.each([
    ["stop", "stopped", 0],
    ["restart", "running", 1],
  ] as const)("when the kernel killed for it, and it is to %s: %s", async (action, state, restarts) => {
    const it = await started({ memory_max: "100MiB", on_exceed: action }, { holds: true });
    it.kernel.spawner.run("a").end({
      status: { kind: "signaled", signal: "SIGKILL" },
      cause: "oom",
      note: "the kernel killed it",
    });
    await it.samples(1);
    const agent = it.kernel.agents.get("a");
    expect(agent).toMatchObject({ state, last_exit: { cause: "oom" } });
    expect(it.kernel.spawner.runs.length).toBe(restarts + 1);
    if (action === "stop")
      expect(agent).toMatchObject({ desired: "stopped", reason: expect.stringContaining("the kernel") });
  });
});

describe("cpu_max", () => {
  it("counts over a window: a peak is nothing, what lasts is slowed down once", async () => {
    const it = await started({ cpu_max: "50%" }, { options: { cpu_window: "10s" } });
    it.uses({ cpu_percent: 100 });
    await it.samples(4);
    it.uses({ cpu_percent: 10 });
    await it.samples(20);
    expect(it.told()).toEqual([]);
    it.uses({ cpu_percent: 80 });
    await it.samples(20);
    expect(it.told()).toEqual(["throttle: CPU 52% over cpu_max 50%, on average over 10s"]);
    expect(it.kernel.spawner.run("a").throttledTo).toBe(50);
    expect(it.kernel.agents.get("a")?.throttle).toMatchObject({
      percent: 50,
      actor: "plugin:policy-resources",
    });
    expect(stateOf(it)).toBe("running");
  });

  it("says nothing before the window is full", async () => {
    const it = await started({ cpu_max: "50%", on_exceed: "stop" }, { options: { cpu_window: "10s" } });
    it.uses({ cpu_percent: 400 });
    await it.samples(10);
    expect(it.told()).toEqual([]);
    await it.samples(1);
    expect([it.told().length, stateOf(it), causeOf(it)]).toEqual([1, "stopped", "policy"]);
  });
});

describe("pids_max", () => {
  it("is told at the first sample over it, and not at the limit", async () => {
    const it = await started({ pids_max: 10 });
    it.uses({ processes: 10 });
    await it.samples(3);
    expect(it.told()).toEqual([]);
    it.uses({ processes: 11 });
    await it.samples(3);
    expect(it.told()).toEqual(["warn: 11 processes over pids_max 10"]);
    expect(stateOf(it)).toBe("running");
  });

  it.each([
    ["warn", "running"],
    ["stop", "stopped"],
  ] as const)("when the kernel refused more, and it is to %s: %s", async (action, state) => {
    const it = await started({ pids_max: 10, on_exceed: action }, { holds: true });
    it.kernel.spawner
      .run("a")
      .limit({ limit: "pids_max", value: 10, action: "refuse", reason: "more than 10 were refused" });
    await it.samples(1);
    const refused = "refuse: more than 10 were refused";
    expect(it.told()).toEqual(action === "warn" ? [refused] : [refused, "stop: more than 10 were refused"]);
    expect(stateOf(it)).toBe(state);
  });
});

describe("run_time_max", () => {
  it("ends the run at its time, and not before, whatever it does", async () => {
    const it = await started({ run_time_max: "30m" });
    it.uses({ cpu_percent: 100 });
    await it.clock.advance(30 * 60 * SECOND - 1);
    expect([it.told(), stateOf(it)]).toEqual([[], "running"]);
    await it.clock.advance(2);
    expect(it.told()).toEqual(["stop: running for 30m, run_time_max 30m"]);
    expect([stateOf(it), causeOf(it)]).toEqual(["stopped", "policy"]);
  });

  it("counts each run anew", async () => {
    const it = await started({ run_time_max: "10m", on_exceed: "restart" });
    await it.clock.advance(9 * 60 * SECOND);
    await it.kernel.control.restart("a", operator);
    await it.kernel.agents.wait("a", "settled");
    await it.clock.advance(9 * 60 * SECOND);
    expect(it.told()).toEqual([]);
    await it.clock.advance(2 * 60 * SECOND);
    expect(it.told()).toEqual(["restart: running for 10m, run_time_max 10m"]);
  });
});

describe("idle_max", () => {
  it("ends who has used next to nothing for so long", async () => {
    const it = await started({ idle_max: "1m" });
    it.uses({ cpu_percent: 0.9 });
    await it.samples(59);
    expect([it.told(), stateOf(it)]).toEqual([[], "running"]);
    await it.samples(8);
    expect(it.told()[0]).toMatch(/^stop: idle for 1m.*, idle_max 1m$/);
    expect([stateOf(it), causeOf(it)]).toEqual(["stopped", "policy"]);
  });

  it("leaves alone who works now and then, or sends a heartbeat", async () => {
    const it = await started({ idle_max: "1m" });
    for (let round = 0; round < 5; round += 1) {
      await it.samples(50);
      it.uses({ cpu_percent: 5 });
      await it.samples(1);
      it.uses({ cpu_percent: 0 });
      await it.samples(50);
      const runId = it.kernel.agents.get("a")?.run_id ?? "";
      await it.kernel.reports.heartbeat("a", runId, {});
    }
    expect([it.told(), stateOf(it)]).toEqual([[], "running"]);
  });

  it("leaves alone who waits for an agent that it started", async () => {
    const it = await started({ idle_max: "1m" });
    await it.kernel.control.create({ agent_id: "child", template_id: "Child", parent_id: "a" }, operator);
    await it.samples(300);
    expect([it.told(), stateOf(it)]).toEqual([[], "running"]);
    await it.kernel.control.remove("child", operator);
    await it.samples(70);
    expect(stateOf(it)).toBe("stopped");
  });

  it("counts the work of a time without samples as work", async () => {
    const it = await started({ idle_max: "10s" });
    await it.samples(2);
    it.uses({ cpu_ms: 60_000 });
    await it.samples(9);
    expect([it.told(), stateOf(it)]).toEqual([[], "running"]);
  });
});

describe("the plugin", () => {
  it("reports the daemon's own memory once, and ends nothing for it", async () => {
    const it = await started({}, { options: { daemon_memory_max: "1MiB" } });
    await it.clock.advance(60 * SECOND);
    expect(it.kernel.status().problems).toEqual([
      expect.stringMatching(/^plugin policy-resources: the daemon uses .* of memory, over 1MiB$/),
    ]);
    const degraded = it.kernel.state.events.filter(({ type }) => type === "plugin.degraded");
    expect(degraded.length).toBe(1);
    expect(stateOf(it)).toBe("running");
    const enough = await started({}, { options: { daemon_memory_max: "100GiB" } });
    expect(enough.kernel.status().problems).toEqual([]);
  });

  it("does not act on a run that is over", async () => {
    const it = await started({ memory_max: "100MiB", run_time_max: "10s", on_exceed: "stop" });
    await it.kernel.control.restart("a", operator);
    await it.kernel.control.stop("a", operator);
    await it.kernel.agents.wait("a", "ended");
    it.uses({ memory_bytes: 500 * MIB });
    await it.samples(30);
    expect(it.told()).toEqual([]);
  });

  it("ends an agent also while the journal cannot be written", async () => {
    const it = await started({ memory_max: "100MiB", on_exceed: "stop" });
    it.kernel.state.broken = true;
    it.uses({ memory_bytes: 500 * MIB });
    await it.samples(2);
    expect(it.kernel.spawner.run("a").live).toBe(false);
    it.kernel.state.broken = false;
  });
});
