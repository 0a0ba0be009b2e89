import { afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { definePlugin, type Principal, type ProbeRun, probe } from "../../../core/index.js";
import healthChecker from "../../../plugins/health-checker/index.js";
import operationAgents from "../../../plugins/operation-agents/index.js";
import probeHeartbeat from "../../../plugins/probe-heartbeat/index.js";
import probePid from "../../../plugins/probe-pid/index.js";
import { memoryJournalState, memorySpawner } from "../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../contract/test-kernel.js";
import { createFakeClock } from "../../helpers/fake-clock.js";
import { waitFor } from "../../helpers/wait-for.js";

const operator = { actor: "operator", reason: "a test" };
const OPERATOR: Principal = { kind: "operator", id: "operator" };
const kernels: TestKernel[] = [];

async function started(options: TestKernelOptions = {}): Promise<TestKernel> {
  const plugins = [
    healthChecker(),
    probePid(),
    probeHeartbeat(),
    operationAgents(),
    ...(options.plugins ?? []),
  ];
  const kernel = createTestKernel({ ...options, plugins });
  kernels.push(kernel);
  await kernel.start();
  return kernel;
}

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

const beat = (kernel: TestKernel, agent_id = "a") =>
  kernel.dispatch("agents.heartbeat", { agent_id }, OPERATOR);

/** A probe that the test speaks for. */
function spokenProbe(watching: ProbeRun[], watch = (run: ProbeRun) => void watching.push(run)) {
  return definePlugin({
    name: "probe-spoken",
    apiVersion: 1,
    provides: [probe],
    options: z.strictObject({}),
    setup: (ctx) =>
      ctx.provide(probe, {
        name: "spoken",
        roles: ["readiness", "liveness"],
        options: z.strictObject({ word: z.string().default("hello") }),
        watch,
      }),
  })();
}

describe("health-checker", () => {
  const templates = {
    Both: {
      readiness: { type: "spoken", timeout: "1h", word: "up" },
      liveness: { type: "spoken", word: "alive" },
    },
    Plain: {},
  };

  test("watches for readiness until it is ready, for liveness from then on, until the run is over", async () => {
    const watching: ProbeRun[] = [];
    const kernel = await started({ templates, plugins: [spokenProbe(watching)] });
    await kernel.agents.create({ agent_id: "a", template_id: "Both" }, operator);
    await waitFor(() => watching.length === 1, { what: "the readiness probe" });
    const [readiness] = watching as [ProbeRun];
    expect(readiness).toMatchObject({ role: "readiness", options: { word: "up" }, agent: { agent_id: "a" } });
    expect(readiness.runId).toBe(kernel.agents.get("a")?.run_id);
    readiness.report.ready();
    expect(await kernel.agents.wait("a", "ready")).toMatchObject({ state: "running", health: "unknown" });
    await waitFor(() => watching.length === 2, { what: "the liveness probe" });
    const [, liveness] = watching as [ProbeRun, ProbeRun];
    expect(readiness.signal.aborted).toBe(true);
    expect(liveness).toMatchObject({ role: "liveness", options: { word: "alive" } });
    liveness.report.healthy();
    await waitFor(() => kernel.agents.get("a")?.health === "healthy", { what: "health" });
    await kernel.agents.stop("a", operator);
    await waitFor(() => liveness.signal.aborted, { what: "the end of the watch" });
  });

  test("unhealthy ends the run, and the restart rules decide", async () => {
    const watching: ProbeRun[] = [];
    const kernel = await started({
      templates: { Live: { liveness: { type: "spoken" }, restart: { backoff: { min: "0ms" } } } },
      plugins: [spokenProbe(watching)],
    });
    await kernel.agents.create({ agent_id: "a", template_id: "Live" }, operator);
    await waitFor(() => watching.length === 1, { what: "the probe" });
    watching[0]?.report.unhealthy("it answers 500");
    await waitFor(() => watching.length === 2, { what: "the next run's probe" });
    expect(kernel.agents.get("a")).toMatchObject({
      state: "running",
      restarts: 1,
      health: "unknown",
      last_exit: {
        cause: "unhealthy",
        actor: "daemon",
        reason: expect.stringMatching(/it answers 500/),
      },
    });
    expect(watching[1]?.runId).not.toBe(watching[0]?.runId);
  });

  test("what a probe says too late, or about what it was not asked for, changes nothing", async () => {
    const watching: ProbeRun[] = [];
    const kernel = await started({ templates, plugins: [spokenProbe(watching)] });
    await kernel.agents.create({ agent_id: "a", template_id: "Both" }, operator);
    await waitFor(() => watching.length === 1, { what: "the readiness probe" });
    const [readiness] = watching as [ProbeRun];
    readiness.report.unhealthy("not its business");
    readiness.report.ready();
    await waitFor(() => watching.length === 2, { what: "the liveness probe" });
    await kernel.agents.restart("a", operator);
    await waitFor(() => watching.length === 3, { what: "the next run's probe" });
    watching[1]?.report.unhealthy("too late");
    readiness.report.ready();
    await kernel.agents.wait("a", "settled");
    expect(kernel.agents.get("a")).toMatchObject({ state: "starting", health: "unknown", restarts: 0 });
    expect(kernel.state.events.some(({ type }) => type === "agent.health")).toBe(false);
  });

  test("a run that a later daemon adopts is watched from anew", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const watching: ProbeRun[] = [];
    const first = await started({ state, spawner, templates, plugins: [spokenProbe(watching)] });
    for (const agent_id of ["ready", "unready"]) {
      await first.agents.create({ agent_id, template_id: "Both" }, operator);
    }
    await waitFor(() => watching.length === 2, { what: "both readiness probes" });
    watching.find(({ agent }) => agent.agent_id === "ready")?.report.ready();
    await waitFor(() => watching.length === 3, { what: "the liveness probe" });
    await first.stop({ agents: "keep", reason: "a restart" });
    expect(watching.every(({ signal }) => signal.aborted)).toBe(true);

    const later: ProbeRun[] = [];
    await started({ state, spawner, templates, plugins: [spokenProbe(later)] });
    await waitFor(() => later.length === 2, { what: "both probes" });
    expect(later.map(({ agent, role }) => [agent.agent_id, role]).sort()).toEqual([
      ["ready", "liveness"],
      ["unready", "readiness"],
    ]);
    expect(new Set(later.map(({ runId }) => runId))).toEqual(
      new Set(spawner.runs.map(({ spec }) => spec.runId)),
    );
  });

  test("an adopted run whose probe is no longer provided is named", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const watching: ProbeRun[] = [];
    const first = await started({ state, spawner, templates, plugins: [spokenProbe(watching)] });
    await first.agents.create({ agent_id: "a", template_id: "Both" }, operator);
    await waitFor(() => watching.length === 1, { what: "the probe" });
    await first.stop({ agents: "keep", reason: "a restart" });
    const later = await started({ state, spawner, templates });
    const health = () => later.plugins().find(({ name }) => name === "health-checker");
    await waitFor(() => health()?.state === "degraded", { what: "the plugin to be degraded" });
    expect(health()?.problem).toMatch(/^agent a is not watched for .*no plugin provides/);
    expect(later.agents.get("a")?.state).toBe("starting");
  });

  test("a probe that throws harms nobody", async () => {
    const broken = spokenProbe([], () => {
      throw new Error("out of order");
    });
    const kernel = await started({
      templates: { Live: { liveness: { type: "spoken" } } },
      plugins: [broken],
    });
    await kernel.agents.create({ agent_id: "a", template_id: "Live" }, operator);
    expect(await kernel.agents.wait("a", "ready")).toMatchObject({ state: "running" });
    await waitFor(() => kernel.plugins().some(({ problem }) => problem?.includes("out of order")), {
      what: "the fault to be shown",
    });
  });

  test("an agent that declares nothing is not watched, and its health stays unknown", async () => {
    const kernel = await started({ templates });
    await kernel.agents.create({ agent_id: "a", template_id: "Plain" }, operator);
    const agent = await kernel.agents.wait("a", "ready");
    expect(agent).toMatchObject({ state: "running", health: "unknown" });
  });

  test("a template that names an unknown probe, or misuses one, is refused", async () => {
    const refused = {
      Unknown: { liveness: { type: "pidd" } },
      Misused: { liveness: { type: "pid", every: "1s" } },
    };
    const kernel = await started({ templates: refused });
    for (const template_id of Object.keys(refused)) {
      await expect(kernel.agents.create({ template_id }, operator)).rejects.toMatchObject({
        code: "template_invalid",
      });
    }
  });
});

test("probe-pid: healthy as soon as it is watched", async () => {
  const kernel = await started({ templates: { Live: { liveness: { type: "pid" } } } });
  await kernel.agents.create({ agent_id: "a", template_id: "Live" }, operator);
  await waitFor(() => kernel.agents.get("a")?.health === "healthy", { what: "health" });
});

describe("probe-heartbeat", () => {
  const templates = {
    Ready: { readiness: { type: "heartbeat", timeout: "60s" } },
    Live: { liveness: { type: "heartbeat", interval: "10s", misses: 3 }, restart: { policy: "never" } },
    Both: {
      readiness: { type: "heartbeat", timeout: "1h" },
      liveness: { type: "heartbeat", interval: "1s", misses: 1 },
    },
  };

  test("the first heartbeat makes an agent ready", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates });
    await kernel.agents.create({ agent_id: "a", template_id: "Ready" }, operator);
    await kernel.agents.wait("a", "launched");
    await clock.advance(59_000);
    expect(kernel.agents.get("a")?.state).toBe("starting");
    await beat(kernel);
    expect(await kernel.agents.wait("a", "ready")).toMatchObject({ state: "running" });
    await clock.advance(3_600_000);
    expect(kernel.agents.get("a")?.state).toBe("running");
  });

  test("no heartbeat in time is a failed start", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates });
    await kernel.agents.create({ agent_id: "a", template_id: "Ready" }, operator);
    await kernel.agents.wait("a", "launched");
    await clock.advance(60_000);
    await waitFor(() => kernel.agents.get("a")?.last_exit, { what: "the end of the run" });
    expect(kernel.agents.get("a")?.last_exit).toMatchObject({ cause: "start_timeout", success: false });
  });

  test("interval times misses without one is unhealthy; each one counts anew", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates });
    await kernel.agents.create({ agent_id: "a", template_id: "Live" }, operator);
    await kernel.agents.wait("a", "ready");
    await clock.advance(29_000);
    expect(kernel.agents.get("a")?.health).toBe("unknown");
    await beat(kernel);
    expect(kernel.agents.get("a")?.health).toBe("healthy");
    for (let count = 0; count < 5; count++) {
      await clock.advance(29_999);
      await beat(kernel);
    }
    expect(kernel.agents.get("a")).toMatchObject({ state: "running", health: "healthy" });
    await clock.advance(29_999);
    expect(kernel.agents.get("a")).toMatchObject({ state: "running", health: "healthy" });
    await clock.advance(1);
    await waitFor(() => kernel.agents.get("a")?.last_exit, { what: "the end of the run" });
    expect(kernel.agents.get("a")?.last_exit).toMatchObject({
      cause: "unhealthy",
      reason: expect.stringMatching(/^no heartbeat for 30s \(3 × 10s\)/),
    });
    const changes = kernel.state.events
      .filter(({ type }) => type === "agent.health")
      .map(({ data }) => data.to);
    expect(changes).toEqual(["healthy", "unhealthy"]);
  });

  test("an agent that never gives one is unhealthy as well", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates });
    await kernel.agents.create({ agent_id: "a", template_id: "Live" }, operator);
    await kernel.agents.wait("a", "ready");
    await clock.advance(30_000);
    await waitFor(() => kernel.agents.get("a")?.last_exit?.cause === "unhealthy", { what: "the end" });
  });

  test("liveness does not count while it is not ready", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates });
    await kernel.agents.create({ agent_id: "a", template_id: "Both" }, operator);
    await kernel.agents.wait("a", "launched");
    await clock.advance(600_000);
    expect(kernel.agents.get("a")).toMatchObject({ state: "starting", health: "unknown" });
  });

  test("one agent's heartbeat is nobody else's, and a run that is over has no timers", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates });
    const idle = clock.pending();
    for (const agent_id of ["a", "b"]) {
      await kernel.agents.create({ agent_id, template_id: "Live" }, operator);
      await kernel.agents.wait(agent_id, "ready");
    }
    await clock.advance(20_000);
    await beat(kernel, "a");
    await clock.advance(10_000);
    await waitFor(() => kernel.agents.get("b")?.last_exit, { what: "the end of b" });
    expect(kernel.agents.get("a")).toMatchObject({ state: "running", health: "healthy" });
    await kernel.agents.stop("a", operator);
    await kernel.agents.wait("a", "settled");
    await waitFor(() => clock.pending() === idle, { what: "all timers to be gone", diagnose: clock.pending });
  });

  test("a daemon that was away holds nothing against a run that it adopts", async () => {
    const clock = createFakeClock();
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const first = await started({ clock, state, spawner, templates });
    await first.agents.create({ agent_id: "a", template_id: "Live" }, operator);
    await first.agents.wait("a", "ready");
    await clock.advance(25_000);
    await first.stop({ agents: "keep", reason: "a restart" });
    await clock.advance(600_000);
    const later = await started({ clock, state, spawner, templates });
    await clock.advance(29_000);
    expect(later.agents.get("a")).toMatchObject({ state: "running" });
    await clock.advance(1_000);
    await waitFor(() => later.agents.get("a")?.last_exit?.cause === "unhealthy", { what: "the end" });
  });
});
