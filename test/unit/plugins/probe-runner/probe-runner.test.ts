import { afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { definePlugin, type Principal, type Probe, type ProbeRun, probe } from "../../../../core/index.js";
import { sectionOrigins } from "../../../../plugins/builtins.js";
import operationAgents from "../../../../plugins/operation-agents/index.js";
import probeHeartbeat from "../../../../plugins/probe-heartbeat/index.js";
import probePid from "../../../../plugins/probe-pid/index.js";
import probeRunner from "../../../../plugins/probe-runner/index.js";
import { memoryJournalState, memorySpawner } from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../../contract/test-kernel.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { waitFor } from "../../../helpers/wait-for.js";

const operator = { actor: "operator", reason: "a test" };
const OPERATOR: Principal = { kind: "operator", id: "operator" };
const kernels: TestKernel[] = [];

async function started(options: TestKernelOptions = {}): Promise<TestKernel> {
  const plugins = [
    probeRunner(),
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

const beat = (kernel: TestKernel, agent_id = "a", said: object = {}) =>
  kernel.dispatch("agents.heartbeat", { agent_id, ...said }, OPERATOR);

/** A probe that the test speaks for. */
function spokenProbe(
  watching: ProbeRun[],
  watch = (run: ProbeRun) => void watching.push(run),
  more: Partial<Probe> = {},
) {
  return definePlugin({
    name: "probe-spoken",
    apiVersion: 1,
    provides: [probe],
    options: z.strictObject({}),
    setup: (ctx) =>
      ctx.provide(probe, {
        name: "spoken",
        roles: ["readiness", "liveness"],
        options: z.strictObject({ word: z.string().max(100).default("hello") }),
        watch,
        ...more,
      }),
  })();
}

describe("probe-runner", () => {
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
    await kernel.control.create({ agent_id: "a", template_id: "Both" }, operator);
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
    await kernel.control.stop("a", operator);
    await waitFor(() => liveness.signal.aborted, { what: "the end of the watch" });
  });

  test("unhealthy ends the run, and the restart rules decide", async () => {
    const watching: ProbeRun[] = [];
    const kernel = await started({
      templates: { Live: { liveness: { type: "spoken" }, restart: { backoff: { min: "0ms" } } } },
      plugins: [spokenProbe(watching)],
    });
    await kernel.control.create({ agent_id: "a", template_id: "Live" }, operator);
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
    await kernel.control.create({ agent_id: "a", template_id: "Both" }, operator);
    await waitFor(() => watching.length === 1, { what: "the readiness probe" });
    const [readiness] = watching as [ProbeRun];
    readiness.report.unhealthy("not its business");
    readiness.report.ready();
    await waitFor(() => watching.length === 2, { what: "the liveness probe" });
    await kernel.control.restart("a", operator);
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
      await first.control.create({ agent_id, template_id: "Both" }, operator);
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
    await first.control.create({ agent_id: "a", template_id: "Both" }, operator);
    await waitFor(() => watching.length === 1, { what: "the probe" });
    await first.stop({ agents: "keep", reason: "a restart" });
    const later = await started({ state, spawner, templates });
    const health = () => later.plugins().find(({ name }) => name === "probe-runner");
    await waitFor(() => health()?.state === "degraded", { what: "the plugin to be degraded" });
    expect(health()?.problem).toMatch(/^agent a is not watched for .*there is no \w+ probe/);
    expect(later.agents.get("a")?.state).toBe("starting");
  });

  test("is degraded for as long as a run that it cannot watch lives, and names all of them", async () => {
    const outOfOrder = spokenProbe([], () => {
      throw new Error("out of order");
    });
    const kernel = await started({
      templates: { Live: { liveness: { type: "spoken" } } },
      plugins: [outOfOrder],
    });
    const shown = () => kernel.plugins().find(({ name }) => name === "probe-runner");
    for (const agent_id of ["a", "b"]) {
      await kernel.control.create({ agent_id, template_id: "Live" }, operator);
      await kernel.agents.wait(agent_id, "ready");
    }
    const fault = (id: string) => `agent ${id} is not watched for liveness: out of order`;
    await waitFor(() => shown()?.problem === `${fault("a")}; ${fault("b")}`, { what: "both faults" });
    await kernel.control.stop("b", operator);
    await waitFor(() => shown()?.problem === fault("a"), { what: "the fault that is left" });
    await kernel.control.stop("a", operator);
    await waitFor(() => shown()?.state === "started", { what: "the plugin to recover" });
    expect(shown()?.problem).toBeUndefined();
  });

  test("why it is not ready yet is shown, and told when the start fails; more time may be asked for", async () => {
    const clock = createFakeClock();
    const watching: ProbeRun[] = [];
    const patient = { Slow: { readiness: { type: "spoken", timeout: "10s" }, restart: { policy: "never" } } };
    const kernel = await started({ clock, templates: patient, plugins: [spokenProbe(watching)] });
    await kernel.control.create({ agent_id: "a", template_id: "Slow" }, operator);
    await waitFor(() => watching.length === 1, { what: "the probe" });
    const { starting } = (watching[0] as ProbeRun).report;
    starting({ reason: "no index yet" });
    await waitFor(() => kernel.agents.get("a")?.reason === "no index yet", { what: "the reason" });
    await clock.advance(9_000);
    starting({ withinMs: 20_000 });
    // Less than it has does not take it away.
    starting({ withinMs: 1 });
    await clock.advance(19_999);
    expect(kernel.agents.get("a")?.state).toBe("starting");
    await clock.advance(1);
    await waitFor(() => kernel.agents.get("a")?.last_exit, { what: "the end of the run" });
    expect(kernel.agents.get("a")?.last_exit).toMatchObject({
      cause: "start_timeout",
      reason: expect.stringMatching(/^it was not ready within 29s: no index yet; it /),
    });
  });

  test("with startup and no readiness the liveness probe says when it is ready, and counts from then on", async () => {
    const clock = createFakeClock();
    const watching: ProbeRun[] = [];
    const startup = {
      Live: {
        startup: { timeout: "5m" },
        liveness: { type: "spoken", word: "x" },
        restart: { policy: "never" },
      },
    };
    const kernel = await started({ clock, templates: startup, plugins: [spokenProbe(watching)] });
    for (const agent_id of ["a", "b"])
      await kernel.control.create({ agent_id, template_id: "Live" }, operator);
    await waitFor(() => watching.length === 2, { what: "the probes" });
    expect(watching[0]).toMatchObject({ role: "readiness", options: { word: "x" } });
    await clock.advance(299_999);
    watching.find(({ agent }) => agent.agent_id === "a")?.report.ready();
    await waitFor(() => watching.length === 3, { what: "the liveness probe" });
    expect(watching[2]).toMatchObject({ role: "liveness", agent: { agent_id: "a" } });
    await clock.advance(1);
    await waitFor(() => kernel.agents.get("b")?.last_exit, { what: "the end of b" });
    expect(kernel.agents.get("b")?.last_exit).toMatchObject({ cause: "start_timeout" });
    expect(kernel.agents.get("a")).toMatchObject({ state: "running" });
  });

  test("placeholders in a probe's section are filled in, and what comes out is checked", async () => {
    const watching: ProbeRun[] = [];
    const withParams = {
      Worded: {
        params: { word: { type: ["string", "number"] } },
        liveness: { type: "spoken", word: "{{params.word}}!" },
      },
    };
    const kernel = await started({ templates: withParams, plugins: [spokenProbe(watching)] });
    await kernel.control.create({ agent_id: "a", template_id: "Worded", params: { word: "hi" } }, operator);
    await waitFor(() => watching.length === 1, { what: "the probe" });
    expect(watching[0]?.options).toEqual({ word: "hi!" });
    const long = kernel.control.create(
      { agent_id: "b", template_id: "Worded", params: { word: "x".repeat(200) } },
      operator,
    );
    await expect(long).rejects.toMatchObject({
      code: "template_invalid",
      message: expect.stringMatching(/liveness: word: expected at most 100 characters/),
    });
  });

  test("a probe that cannot be used on this machine refuses its templates, and says why", async () => {
    const kernel = await started({
      templates: { Live: { liveness: { type: "absent" } } },
      plugins: [spokenProbe([], undefined, { name: "absent", unavailable: "it needs a moon" })],
    });
    await expect(kernel.control.create({ template_id: "Live" }, operator)).rejects.toMatchObject({
      code: "template_invalid",
      message: expect.stringMatching(/liveness: the probe absent cannot be used here: it needs a moon/),
    });
  });

  test("a start whose probe has gone in the meantime fails at once, and says so", async () => {
    const state = memoryJournalState();
    const first = await started({ state, templates, plugins: [spokenProbe([])] });
    await first.control.create({ agent_id: "a", template_id: "Both", start: false }, operator);
    await first.stop({ agents: "stop", reason: "a restart" });
    const later = await started({ state, templates });
    await expect(later.control.start("a", operator)).rejects.toMatchObject({
      code: "template_invalid",
      message: expect.stringMatching(/there is no readiness probe of type "spoken"/),
    });
  });

  test("a probe that throws harms nobody", async () => {
    const broken = spokenProbe([], () => {
      throw new Error("out of order");
    });
    const kernel = await started({
      templates: { Live: { liveness: { type: "spoken" } } },
      plugins: [broken],
    });
    await kernel.control.create({ agent_id: "a", template_id: "Live" }, operator);
    expect(await kernel.agents.wait("a", "ready")).toMatchObject({ state: "running" });
    await waitFor(() => kernel.plugins().some(({ problem }) => problem?.includes("out of order")), {
      what: "the fault to be shown",
    });
  });

  test("an agent that declares nothing is not watched, and its health stays unknown", async () => {
    const kernel = await started({ templates });
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
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
      await expect(kernel.control.create({ template_id }, operator)).rejects.toMatchObject({
        code: "template_invalid",
      });
    }
  });
});

test("probe-pid: healthy as soon as it is watched", async () => {
  const kernel = await started({ templates: { Live: { liveness: { type: "pid" } } } });
  await kernel.control.create({ agent_id: "a", template_id: "Live" }, operator);
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
    await kernel.control.create({ agent_id: "a", template_id: "Ready" }, operator);
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
    await kernel.control.create({ agent_id: "a", template_id: "Ready" }, operator);
    await kernel.agents.wait("a", "launched");
    await clock.advance(60_000);
    await waitFor(() => kernel.agents.get("a")?.last_exit, { what: "the end of the run" });
    expect(kernel.agents.get("a")?.last_exit).toMatchObject({ cause: "start_timeout", success: false });
  });

  test("interval times misses without one is unhealthy; each one counts anew", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates });
    await kernel.control.create({ agent_id: "a", template_id: "Live" }, operator);
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
      .filter((event) => event.type === "agent.health")
      .map(({ data }) => data.to);
    expect(changes).toEqual(["healthy", "unhealthy"]);
  });

  test("an agent that never gives one is unhealthy as well", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates });
    await kernel.control.create({ agent_id: "a", template_id: "Live" }, operator);
    await kernel.agents.wait("a", "ready");
    await clock.advance(30_000);
    await waitFor(() => kernel.agents.get("a")?.last_exit?.cause === "unhealthy", { what: "the end" });
  });

  test("liveness does not count while it is not ready", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates });
    await kernel.control.create({ agent_id: "a", template_id: "Both" }, operator);
    await kernel.agents.wait("a", "launched");
    await clock.advance(600_000);
    expect(kernel.agents.get("a")).toMatchObject({ state: "starting", health: "unknown" });
  });

  test("one agent's heartbeat is nobody else's, and a run that is over has no timers", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates });
    const idle = clock.pending();
    for (const agent_id of ["a", "b"]) {
      await kernel.control.create({ agent_id, template_id: "Live" }, operator);
      await kernel.agents.wait(agent_id, "ready");
    }
    await clock.advance(20_000);
    await beat(kernel, "a");
    await clock.advance(10_000);
    await waitFor(() => kernel.agents.get("b")?.last_exit, { what: "the end of b" });
    expect(kernel.agents.get("a")).toMatchObject({ state: "running", health: "healthy" });
    await kernel.control.stop("a", operator);
    await kernel.agents.wait("a", "settled");
    await waitFor(() => clock.pending() === idle, { what: "all timers to be gone", diagnose: clock.pending });
  });

  test("a daemon that was away holds nothing against a run that it adopts", async () => {
    const clock = createFakeClock();
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const first = await started({ clock, state, spawner, templates });
    await first.control.create({ agent_id: "a", template_id: "Live" }, operator);
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

describe("progress", () => {
  const templates = {
    Busy: { progress: { deadline: "10m", grace: "1m", nudge: "SIGUSR1" }, restart: { policy: "never" } },
    Defaults: { progress: { deadline: "10m" } },
    Slow: { readiness: { type: "heartbeat", timeout: "1h" }, progress: { deadline: "10m" } },
  };
  const steps = (kernel: TestKernel) =>
    kernel.state.events.filter((event) => event.type === "agent.progress").map(({ data }) => data.step);

  async function running(template_id: keyof typeof templates, options: TestKernelOptions = {}) {
    const clock = createFakeClock();
    const kernel = await started({ clock, templates, ...options });
    await kernel.control.create({ agent_id: "a", template_id }, operator);
    await kernel.agents.wait("a", "ready");
    return { clock, kernel, run: kernel.spawner.run("a") };
  }

  test("no progress: nudge, interrupt, restart, each recorded, a grace apart", async () => {
    const { clock, kernel, run } = await running("Busy");
    await clock.advance(599_999);
    expect(steps(kernel)).toEqual([]);
    await clock.advance(1);
    expect(steps(kernel)).toEqual(["nudge"]);
    expect(run.signals).toEqual(["SIGUSR1"]);
    expect(await beat(kernel)).toMatchObject({ state: "running", reason: "no progress for 10m" });
    await clock.advance(60_000);
    expect(steps(kernel)).toEqual(["nudge", "interrupt"]);
    expect(run.signals).toEqual(["SIGUSR1", "SIGINT"]);
    await clock.advance(59_999);
    expect(run.live).toBe(true);
    await clock.advance(1);
    await waitFor(() => kernel.agents.get("a")?.last_exit, { what: "the end" });
    expect(steps(kernel)).toEqual(["nudge", "interrupt", "restart"]);
    expect(kernel.agents.get("a")?.last_exit).toMatchObject({
      cause: "unhealthy",
      reason: expect.stringMatching(/^no progress for 12m; it /),
    });
    expect(kernel.state.events.find(({ type }) => type === "agent.progress")).toMatchObject({
      agent_id: "a",
      run_id: run.spec.runId,
      data: { step: "nudge", reason: "no progress for 10m" },
    });
  });

  test("the default nudge is one that ends nobody", async () => {
    const { clock, run } = await running("Defaults");
    await clock.advance(600_000);
    expect(run.signals).toEqual(["SIGCONT"]);
  });

  test("a new status or a new share is progress; the same again and what it has used are none", async () => {
    const { clock, kernel } = await running("Busy");
    const says = async (said: object) => {
      await beat(kernel, "a", said);
      await clock.advance(599_999);
    };
    await says({ status: "reading" });
    await says({ status: "writing" });
    await says({ progress: 0.5 });
    await says({ progress: 0.6, status: "writing" });
    expect(steps(kernel)).toEqual([]);
    for (const said of [{ status: "writing" }, { progress: 0.6 }, {}, { usage: { output_tokens: 7 } }]) {
      await beat(kernel, "a", said);
    }
    await clock.advance(1);
    expect(steps(kernel)).toEqual(["nudge"]);
  });

  test("one that gets on again is left alone, and its time begins anew", async () => {
    const { clock, kernel, run } = await running("Busy");
    await clock.advance(660_000);
    expect(steps(kernel)).toEqual(["nudge", "interrupt"]);
    await beat(kernel, "a", { status: "back" });
    await waitFor(() => steps(kernel).at(-1) === "resumed", { what: "the record of it" });
    expect(kernel.agents.get("a")?.reason).toBeUndefined();
    await clock.advance(599_999);
    expect(steps(kernel)).toHaveLength(3);
    // What it does from now on is its own doing again.
    run.end({ kind: "exited", code: 0 });
    await waitFor(() => kernel.agents.get("a")?.last_exit, { what: "the end" });
    expect(kernel.agents.get("a")?.last_exit).toMatchObject({ cause: "self", success: true });
  });

  test("an end after the interrupt is put down to it, whatever the exit code", async () => {
    const { clock, kernel, run } = await running("Busy");
    await clock.advance(660_000);
    run.end({ kind: "exited", code: 0 });
    await waitFor(() => kernel.agents.get("a")?.last_exit, { what: "the end" });
    expect(kernel.agents.get("a")).toMatchObject({
      last_exit: {
        cause: "unhealthy",
        actor: "daemon",
        success: false,
        reason: expect.stringMatching(/^no progress for 11m; /),
      },
    });
  });

  test("the time runs from when it is ready, and for a later daemon from anew", async () => {
    const clock = createFakeClock();
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const first = await started({ clock, state, spawner, templates });
    await first.control.create({ agent_id: "a", template_id: "Slow" }, operator);
    await first.agents.wait("a", "launched");
    await clock.advance(1_800_000);
    await beat(first, "a", { status: "up" });
    await first.agents.wait("a", "ready");
    await clock.advance(599_999);
    expect(steps(first)).toEqual([]);
    await first.stop({ agents: "keep", reason: "a restart" });
    await clock.advance(3_600_000);
    const later = await started({ clock, state, spawner, templates });
    await clock.advance(599_000);
    // What it had said to the earlier daemon is nothing new.
    await beat(later, "a", { status: "up" });
    await clock.advance(999);
    expect(steps(later)).toEqual([]);
    await clock.advance(1);
    expect(steps(later)).toEqual(["nudge"]);
  });

  test("a run that is being stopped is left alone, and one that is over has no timer", async () => {
    const clock = createFakeClock();
    const spawner = memorySpawner({ stubborn: ["a"] });
    const stubborn = { Busy: { ...templates.Busy, stop: { grace: "1h" } } };
    const kernel = await started({ clock, templates: stubborn, spawner });
    const idle = clock.pending();
    await kernel.control.create({ agent_id: "a", template_id: "Busy" }, operator);
    await kernel.agents.wait("a", "ready");
    await kernel.control.stop("a", operator);
    await clock.advance(1_800_000);
    expect(steps(kernel)).toEqual([]);
    expect(spawner.run("a").signals).toEqual(["SIGTERM"]);
    spawner.run("a").end({ kind: "exited", code: 0 });
    await kernel.agents.wait("a", "settled");
    await waitFor(() => clock.pending() === idle, { what: "all timers to be gone", diagnose: clock.pending });
  });

  test("a template whose probe no plugin provides is refused, with the probes that there are", async () => {
    const kernel = createTestKernel({
      templates: { Slow: { readiness: { type: "test" } } },
      plugins: [probeRunner()],
    });
    kernels.push(kernel);
    await kernel.start();
    await expect(
      kernel.control.create({ agent_id: "a", template_id: "Slow" }, operator),
    ).rejects.toMatchObject({
      code: "template_invalid",
      message: expect.stringMatching(/no readiness probe of type "test"/),
    });
    expect(kernel.agents.get("a")).toBeUndefined();
  });

  test("a template is refused by the name of its section when no plugin provides that", async () => {
    const kernel = createTestKernel({ templates, sectionOrigins });
    kernels.push(kernel);
    await kernel.start();
    await expect(kernel.control.create({ template_id: "Busy" }, operator)).rejects.toMatchObject({
      code: "template_invalid",
      message: expect.stringMatching(
        /Busy.*the section "progress" needs a plugin that provides it; add probe-runner$/,
      ),
    });
  });
});
