import { afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  type Cause,
  definePlugin,
  type Exit,
  OpenStarryError,
  type PluginContext,
  type Principal,
  type ProbeRun,
  probe,
  type ResourceFigures,
  type RunOutcome,
  SpawnDeferred,
  type Survivor,
  sampler,
} from "../../../../../core/index.js";
import type { Why } from "../../../../../plugins/agent-manager-tool/client/wire.js";
import operationAgents from "../../../../../plugins/operation-agents/index.js";
import { exitInWords } from "../../../../../plugins/operation-agents/why/in-words.js";
import { whySchema } from "../../../../../plugins/operation-agents/why/why.js";
import budget from "../../../../../plugins/policy-budget/index.js";
import policyChildren from "../../../../../plugins/policy-children/index.js";
import resourcePolicy from "../../../../../plugins/policy-resources/index.js";
import healthChecker from "../../../../../plugins/probe-runner/index.js";
import { decide, used } from "../../../../../plugins/restart-policy-intensity/decide.js";
import samplerRunner from "../../../../../plugins/sampler-runner/index.js";
import {
  allowAll,
  type MemorySpawner,
  memoryJournalState,
  memorySpawner,
} from "../../../../contract/memory-plugins.js";
import {
  createTestKernel,
  type TestKernel,
  type TestKernelOptions,
} from "../../../../contract/test-kernel.js";
import { createFakeClock, type FakeClock } from "../../../../helpers/fake-clock.js";

const MIB = 2 ** 20;
const OPERATOR: Principal = { kind: "operator", id: "operator" };
const me = { actor: "operator", reason: "a test" };
const kernels: TestKernel[] = [];

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

/** A kernel with real policies, on which the test plays the operating system and the probes. */
interface Stage {
  kernel: TestKernel;
  clock: FakeClock;
  /** The inside of a plugin called `stage`. */
  ctx: PluginContext;
  /** What is watched, the newest last. */
  probes: ProbeRun[];
  uses(figures: Partial<ResourceFigures>): void;
  create(template_id?: string, more?: object): Promise<void>;
  end(outcome: Parameters<ReturnType<MemorySpawner["run"]>["end"]>[0], agentId?: string): Promise<void>;
  why(agentId?: string, as?: Principal): Promise<Why>;
}

const TEMPLATES = {
  Plain: {},
  Never: { restart: { policy: "never" } },
  Loops: { restart: { policy: "on-failure", max_restarts: 2, period: "60s", backoff: { min: "1s" } } },
  Leaks: { resources: { memory_max: "100MiB" }, restart: { backoff: { min: "0s" } } },
  LeaksAndStops: { resources: { memory_max: "100MiB", on_exceed: "stop" } },
  Burns: { resources: { cpu_max: "50%", on_exceed: { cpu_max: "throttle" } } },
  Limited: { resources: { memory_max: "100MiB", open_files_max: 100, run_time_max: "1h" } },
  Ready: { readiness: { type: "spoken", timeout: "30s" }, restart: { policy: "never" } },
  Lives: { liveness: { type: "spoken" }, restart: { policy: "never" } },
  Progresses: { progress: { deadline: "10m" } },
  Once: { restart: { policy: "on-failure", max_restarts: 1, period: "60s" } },
  Spends: { budget: { tokens_max: 1000 } },
  Needs: { requires: ["agent:indexer"] },
  NeedsBus: { requires: ["bus"] },
  Parent: { children: {} },
};

async function onStage(options: TestKernelOptions = {}): Promise<Stage> {
  const clock = createFakeClock();
  const probes: ProbeRun[] = [];
  let figures: ResourceFigures = { cpu_percent: 0, cpu_ms: 0, memory_bytes: 0, processes: 1 };
  let ctx: PluginContext | undefined;
  const stage = definePlugin({
    name: "stage",
    apiVersion: 1,
    provides: [sampler, probe],
    options: z.strictObject({}),
    setup(given) {
      ctx = given;
      given.provide(sampler, {
        name: "scripted",
        intervalMs: 1_000,
        sample: async (runs) => new Map(runs.map(({ run_id }) => [run_id, figures])),
      });
      given.provide(probe, {
        name: "spoken",
        roles: ["readiness", "liveness"],
        options: z.looseObject({}),
        watch: (run) => void probes.push(run),
      });
    },
  });
  const kernel = createTestKernel({
    authorizer: allowAll,
    clock,
    templates: TEMPLATES,
    policy: { decide: (input) => decide(input, { jitter: "none", random: () => 0 }), used },
    ...options,
    plugins: [
      operationAgents(),
      policyChildren(),
      samplerRunner(),
      stage(),
      healthChecker(),
      resourcePolicy({ cpu_window: "2s" }),
      ...(options.plugins ?? []),
    ],
  });
  kernels.push(kernel);
  await kernel.start();
  if (!ctx) throw new Error("the plugin was not set up");
  return {
    kernel,
    clock,
    ctx,
    probes,
    uses(more) {
      figures = { ...figures, ...more };
    },
    async create(template_id = "Plain", more = {}) {
      const { agent_id } = await kernel.control.create({ agent_id: "a", template_id, ...more }, me);
      await kernel.agents.wait(agent_id, "launched");
    },
    async end(outcome, agentId = "a") {
      kernel.spawner.run(agentId).end(outcome);
      await kernel.agents.wait(agentId, "settled");
    },
    why: (agent_id = "a", as = OPERATOR) => kernel.dispatch("agents.why", { agent_id }, as) as Promise<Why>,
  };
}

const killed: RunOutcome = { status: { kind: "signaled", signal: "SIGKILL", raw_status: 137 } };
const crash: RunOutcome = { status: { kind: "exited", code: 3 }, outputTail: "no model to talk to" };

/** A spawner that cannot adopt: what it knows of runs is this. */
const forgetful = (outcome: RunOutcome): MemorySpawner => ({
  ...memorySpawner(),
  adopt: async () => ({ outcome }),
});

interface Scene {
  options?: TestKernelOptions;
  /** Answers the id of the agent that is asked about; absent: `a`. */
  play(stage: Stage): Promise<string | undefined | void>;
  state: string;
  summary?: RegExp;
  next?: RegExp;
  hint?: RegExp;
  /** Expected evidence, each as `kind: text`. */
  evidence?: RegExp[];
  /** Kinds of evidence that are not there. */
  without?: string[];
}

const scenes: Record<string, Scene> = {
  "a crash loop is explained by the number of restarts": {
    async play({ create, end, clock }) {
      await create("Loops");
      for (let run = 0; run < 3; run++) {
        await end(crash);
        await clock.advance(5_000);
      }
    },
    state: "failed",
    summary:
      /^a has failed and will not be restarted: it exited with code 3; crash loop: 3 restarts would be within 1m, at most 2 allowed\. Its last run ended 5s ago, after 3s: by itself \(exit 3: program-specific error\)\. 3 of its last 3 runs failed\. It was restarted automatically 2 times\.$/,
    next: /^nothing until it is started$/,
    hint: /^check its logs \(GET \/agents\/a\/logs\) and fix the failure, then POST \/agents\/a\/start; or delete it: /,
  },
  "a backoff says when the next start is and how many restarts were used": {
    async play({ create, end, clock }) {
      await create("Loops");
      await clock.advance(42_000);
      await end(crash);
      await clock.advance(400);
    },
    state: "backoff",
    summary:
      /^a has ended and is backing off before its next start: it exited with code 3; 1 restart within 1m, at most 2 allowed; next start in 1s\./,
    next: /^will be started again at 2026-01-01T00:00:43\.000Z \(in 600ms\)$/,
    hint: /^check its logs .*; to start it now: POST \/agents\/a\/start$/,
    evidence: [/^restarts: used so far: 1 of 2 restarts within 1m, 1 of 6 failures in a row$/],
  },
  "a kill for want of memory names the limit": {
    async play({ create, end }) {
      await create("Never");
      const note = "the kernel killed 1 of its processes for want of memory (memory_max 100MiB)";
      await end({ ...killed, cause: "oom", note });
    },
    state: "failed",
    summary: /killed by the operating system, out of memory \(status 137: killed by SIGKILL\)/,
    hint: /raise memory_max/,
    evidence: [/^oom: it was killed by SIGKILL \(status 137\); the kernel killed 1 .*memory_max 100MiB\)$/],
    without: ["signal"],
  },
  "a SIGKILL that the daemon did not send is explained as such": {
    async play({ create, end }) {
      await create("Never");
      await end(killed);
    },
    state: "exited",
    summary: /by itself \(status 137: killed by SIGKILL, or it exited with code 137 \(indistinguishable\)\)/,
    hint: /^find out what sent SIGKILL: .*, then POST \/agents\/a\/start$/,
    evidence: [
      /^signal: the daemon did not send SIGKILL: another program or a person did, or the kernel because /,
    ],
    without: ["oom"],
  },
  "a stop by a policy names the policy and the figures": {
    async play({ create, uses, clock }) {
      await create("LeaksAndStops");
      for (const memory of [20, 60, 90, 120]) {
        uses({ memory_bytes: memory * MIB, cpu_percent: memory });
        await clock.advance(1_000);
      }
    },
    state: "stopped",
    summary: /^a is stopped: memory 120MiB over memory_max 100MiB; .*stopped by plugin policy-resources/,
    next: /^nothing until it is started$/,
    hint: /^fix what it was ended for, or change the rule, then POST \/agents\/a\/start/,
    evidence: [
      /^limit: plugin policy-resources: memory 120MiB over memory_max 100MiB; agent stopped$/,
      /^ending: plugin policy-resources sent SIGTERM \(10s grace\): memory 120MiB over .*; it exited after 0ms$/,
      /^limit: memory_max 100MiB, enforced by polling \(action: stop\)$/,
    ],
  },
  "a restart by a policy is explained by the previous run": {
    async play({ create, uses, clock }) {
      await create("Leaks");
      uses({ memory_bytes: 120 * MIB });
      await clock.advance(1_000);
      uses({ memory_bytes: 10 * MIB });
      await clock.advance(5_000);
    },
    state: "running",
    summary:
      /^a has been running for 5s .*Its last run ended 5s ago, after 1s: stopped by plugin policy-resources/,
    evidence: [
      /^limit: in the previous run: plugin policy-resources: memory 120MiB .*; run ended, which counts as a failure$/,
      /^limit: memory_max 100MiB, enforced by polling \(action: restart\); currently 10MiB$/,
      /^restarts: .*1 of 5 restarts within 1m/,
    ],
  },
  "a throttled CPU names the policy and the figures": {
    async play({ create, uses, clock }) {
      await create("Burns");
      uses({ cpu_percent: 99 });
      await clock.advance(4_000);
    },
    state: "running",
    summary: /Its CPU is throttled to 50% of one core by plugin policy-resources: CPU 99% over cpu_max 50%/,
    evidence: [
      /^limit: plugin policy-resources: CPU 99% over cpu_max 50%.*; CPU throttled$/,
      /^throttle: plugin policy-resources throttled its CPU to 50% of one core \(quota\): CPU 99%/,
    ],
  },
  "an exhausted budget says when the agent will be stopped": {
    options: { plugins: [budget()] },
    async play({ create, kernel, clock }) {
      await create("Spends");
      const usage = { input_tokens: 1_100, output_tokens: 0, cost_usd: 0 };
      await kernel.reports.heartbeat("a", kernel.agents.get("a")?.run_id ?? "", { usage });
      await clock.advance(10_000);
    },
    state: "running",
    next: /^will be stopped at 2026-01-01T00:00:30\.000Z \(in 20s\) for exceeding tokens_max; then nothing until it is started$/,
    hint: /^wait until it is stopped; to let it continue, raise tokens_max in its template, then POST \/agents\/a\/start$/,
    evidence: [
      /^limit: plugin policy-budget: 1100 tokens .*; it is stopped at .*:30\.000Z; the agent will be stopped$/,
    ],
  },
  "an exhausted budget says that the agent was stopped": {
    options: { plugins: [budget()] },
    async play({ create, kernel, clock }) {
      await create("Spends");
      const usage = { input_tokens: 1_100, output_tokens: 0, cost_usd: 0 };
      await kernel.reports.heartbeat("a", kernel.agents.get("a")?.run_id ?? "", { usage });
      await clock.advance(30_000);
    },
    state: "stopped",
    evidence: [/^limit: plugin policy-budget: 1100 tokens .*:30\.000Z; agent stopped$/],
  },
  "an exhausted budget says that the agent was to be stopped if it exited first": {
    options: { plugins: [budget()] },
    async play({ create, end, kernel, clock }) {
      await create("Spends");
      const usage = { input_tokens: 1_100, output_tokens: 0, cost_usd: 0 };
      await kernel.reports.heartbeat("a", kernel.agents.get("a")?.run_id ?? "", { usage });
      await clock.advance(10_000);
      await end({ status: { kind: "exited", code: 0 } });
    },
    state: "exited",
    evidence: [/^limit: plugin policy-budget: 1100 tokens .*:30\.000Z; the agent was to be stopped$/],
  },
  "each limit names what enforces it and the current usage": {
    options: { spawner: memorySpawner({ holds: true }) },
    async play({ create, uses, clock }) {
      await create("Limited");
      uses({ memory_bytes: 10 * MIB });
      await clock.advance(60_000);
    },
    state: "running",
    next: /^may run until 2026-01-01T01:00:00\.000Z \(in 59m\), its run_time_max; on exit, its restart policy applies \(on-failure, at most 5 restarts within 1m\)$/,
    evidence: [
      /^limit: memory_max 100MiB, enforced by the operating system \(action: restart\); currently 10MiB$/,
      /^limit: open_files_max 100, enforced by the operating system$/,
      /^limit: run_time_max 1h, enforced by polling \(action: stop\)$/,
    ],
  },
  "a slow start says what the readiness probe reported and how much time is left": {
    async play({ create, probes, clock }) {
      await create("Ready");
      probes[0]?.report.starting({ reason: "the port answers connection refused" });
      await clock.advance(12_000);
    },
    state: "starting",
    summary:
      /^a was started 12s ago \(pid \d+\) and is not ready yet: the port answers connection refused\.$/,
    next: /^will be running once it is ready; will be ended if it is not ready within 30s \(18s left\)$/,
    evidence: [
      /^readiness: probe spoken \(timeout 30s\) last reported: the port answers connection refused$/,
    ],
  },
  "a start that timed out says what the readiness probe reported last": {
    async play({ create, probes, clock }) {
      await create("Ready");
      probes[0]?.report.starting({ reason: "the port answers connection refused" });
      await clock.advance(31_000);
    },
    state: "failed",
    summary: /^a has failed .*it was not ready within 30s: the port answers connection refused/,
    hint: /^check its logs .* and what its readiness probe reported, or raise the timeout, then POST/,
    evidence: [/^readiness: it was not ready within 30s: the port answers connection refused; it /],
  },
  "an unhealthy run says what the liveness probe reported": {
    async play({ create, probes, clock }) {
      await create("Lives");
      probes[0]?.report.healthy();
      await clock.advance(1_000);
      probes[0]?.report.unhealthy("GET /healthz answered 500, three times");
      await clock.advance(1_000);
    },
    state: "failed",
    summary: /it was unhealthy/,
    hint: /for what it did before it became unhealthy/,
    evidence: [
      /^health: changed from unknown to healthy$/,
      /^health: changed from healthy to unhealthy: GET \/healthz answered 500, three times$/,
    ],
  },
  "a healthy run says so": {
    async play({ create, probes, clock }) {
      await create("Lives");
      probes[0]?.report.healthy();
      await clock.advance(1_000);
    },
    state: "running",
    next: /^keeps running; on exit, it will not be restarted$/,
    hint: /^nothing$/,
    evidence: [/^liveness: probe spoken reports healthy$/],
  },
  "a run without progress says when it will be interrupted": {
    async play({ create, clock }) {
      await create("Progresses");
      await clock.advance(600_000);
    },
    state: "running",
    summary: /^a has been running for 10m .*: no progress for 10m\.$/,
    next: /^will be interrupted at 2026-01-01T00:11:00\.000Z \(in 1m\) unless it reports progress first$/,
    hint: /^wait, or check its logs: GET \/agents\/a\/logs$/,
    evidence: [/^progress: no progress for 10m: nudged by a signal$/],
  },
  "a wait for an agent that has ended says that it will not end by itself": {
    async play({ create, end }) {
      await create("Never", { agent_id: "indexer" });
      await end(crash, "indexer");
      await create("Needs");
    },
    state: "pending",
    summary: /^a is waiting for agent:indexer, which is exited\.$/,
    next: /^will start when agent indexer is running; this will not happen by itself$/,
    hint: /^find out why: GET \/agents\/indexer\/why; start it again: POST \/agents\/indexer\/start$/,
    evidence: [/^requirement: agent:indexer has exited: it exited with code 3; its restart policy is never$/],
  },
  "a wait for an agent that is starting names it": {
    async play({ create }) {
      await create("Ready", { agent_id: "indexer" });
      await create("Needs");
    },
    state: "pending",
    next: /^will start when agent indexer is running$/,
    hint: /^wait, or provide what it waits for/,
    evidence: [/^requirement: agent:indexer is starting$/],
  },
  "a wait for an agent that does not exist says so": {
    play: ({ create }) => create("Needs"),
    state: "pending",
    hint: /^create agent indexer with POST \/agents; or delete this one: DELETE \/agents\/a$/,
    evidence: [/^requirement: agent:indexer does not exist$/],
  },
  "a wait for a service says why it is unavailable": {
    async play({ create, ctx }) {
      const health = () => "it is not running";
      ctx.services.publishEndpoint({ name: "bus", protocol: "test", health, urlFor: () => "test://" });
      await create("NeedsBus");
    },
    state: "pending",
    next: /^will start when bus is available$/,
    evidence: [/^requirement: bus is unavailable: it is not running$/],
  },
  "a hold names the plugin that holds the agent": {
    async play({ ctx, kernel }) {
      await kernel.control.create({ agent_id: "a", template_id: "Plain", start: false }, me);
      await ctx.control.hold("a", { actor: "plugin:policy-budget", reason: "the day's money is spent" });
      await kernel.control.start("a", me);
      await kernel.agents.wait("a", "launched");
    },
    state: "pending",
    summary: /^a is waiting to start: held by plugin:policy-budget: the day's money is spent\.$/,
    next: /^will start when plugin policy-budget releases it$/,
    hint: /^wait until plugin policy-budget releases it, or delete it: /,
    evidence: [/^hold: the day's money is spent$/],
  },
  "a deferred start says when it is tried again": {
    async play({ create, ctx, clock }) {
      ctx.hooks.beforeSpawn.tap("quiet", () => {
        throw new SpawnDeferred("it is quiet from 22:00 to 6:00", { retryAfterMs: 60_000 });
      });
      await create();
      await clock.advance(10_000);
    },
    state: "pending",
    summary: /^a is waiting to start: it is quiet from 22:00 to 6:00\.$/,
    next: /^will try to start again at 2026-01-01T00:01:00\.000Z \(in 50s\)$/,
    evidence: [/^deferral: it is quiet from 22:00 to 6:00$/],
  },
  "a deferred start that also waited for an agent names only the deferral": {
    async play({ create, kernel, ctx, clock }) {
      const ready = () => kernel.reports.ready("indexer", kernel.agents.get("indexer")?.run_id ?? "");
      await create("Ready", { agent_id: "indexer" });
      await ready();
      ctx.hooks.beforeSpawn.tap("quiet", (spec) => {
        if (spec.agentId === "indexer") return spec;
        throw new SpawnDeferred("it is quiet", { retryAfterMs: 60_000 });
      });
      await create("Needs");
      await kernel.control.restart("indexer", me);
      await clock.advance(10_000);
      expect(kernel.agents.get("a")).toMatchObject({ reason: "waits for agent:indexer, which is starting" });
      expect(kernel.agents.get("a")).not.toHaveProperty("next_start_at", expect.anything());
      await ready();
      await clock.advance(1_000);
    },
    state: "pending",
    summary: /^a is waiting to start: it is quiet\.$/,
    next: /^will try to start again at 2026-01-01T00:01:00\.000Z \(in 49s\)$/,
    without: ["requirement"],
  },
  "a reason that begins with waits is not doubled": {
    async play({ create, ctx }) {
      ctx.hooks.beforeSpawn.tap("pressure", () => {
        throw new SpawnDeferred("waits: memory pressure: 91% in use", { retryAfterMs: 60_000 });
      });
      await create();
    },
    state: "pending",
    summary: /^a is waiting to start: memory pressure: 91% in use\.$/,
  },
  "a single allowed restart is in the singular": {
    async play({ create }) {
      await create("Once");
    },
    state: "running",
    next: /^keeps running; on exit, its restart policy applies \(on-failure, at most 1 restart within 1m\)$/,
  },
  "a failed start names the error once": {
    async play({ create, kernel }) {
      const detail = "no such program: /bin/agent";
      kernel.spawner.failNext(new OpenStarryError("command_not_found", { detail }));
      await create("Never");
    },
    state: "failed",
    summary:
      /^a has failed .*: it could not be started: no such program: \/bin\/agent[^.]*\. Its last start failed 0ms ago \(command_not_found\)\.$/,
    hint: /^fix the cause of the failed start, then POST/,
  },
  "a child is stopped because its parent was deleted": {
    async play({ create, kernel, clock }) {
      await create("Parent", { agent_id: "boss" });
      await create("Plain", { parent_id: "boss" });
      await kernel.control.remove("boss", me);
      await kernel.agents.wait("a", "ended");
      await clock.advance(1_000);
    },
    state: "stopped",
    summary: /^a is stopped: its parent boss is over.*its parent has ended/,
  },
  "a child is stopped because its parent has ended": {
    async play({ create, end, kernel }) {
      await create("Parent", { agent_id: "boss" });
      await create("Plain", { parent_id: "boss" });
      await end({ kind: "exited", code: 0 }, "boss");
      await kernel.agents.wait("a", "ended");
    },
    state: "stopped",
    evidence: [/^parent: parent boss has exited: it exited with code 0; /],
  },
  "a stop by an agent names the agent": {
    async play({ create, kernel, clock }) {
      await create();
      await clock.advance(3_000);
      await kernel.control.stop("a", { actor: "agent:boss", reason: "agent:boss does not need it" });
      await kernel.agents.wait("a", "ended");
    },
    state: "stopped",
    summary: /^a is stopped: agent:boss does not need it; .*stopped by agent boss \(exit 0: success\)\.$/,
    hint: /^start it with POST \/agents\/a\/start, or delete it with DELETE \/agents\/a$/,
  },
  "a stop in progress says when the agent will be killed": {
    options: { spawner: memorySpawner({ stubborn: ["a"] }) },
    async play({ create, kernel, clock }) {
      await create();
      await kernel.control.stop("a", { actor: "agent:boss", reason: "it is not needed" });
      await clock.advance(3_000);
    },
    state: "stopping",
    summary:
      /^a is stopping: it is not needed\. Its desired state is stopped\. Cause: stopped by agent boss\.$/,
    next: /^once all its processes have exited, it will be stopped; it was sent SIGTERM and will be killed at 2026-01-01T00:00:10\.000Z at the latest \(grace period 10s\)$/,
    hint: /^wait, or kill and delete it: DELETE \/agents\/a\?force=true/,
    evidence: [/^ending: agent boss sent SIGTERM \(10s grace\): it is not needed$/],
  },
  "processes that cannot be killed are named": {
    options: { spawner: undying([{ pid: 4711, name: "python3" }]) },
    async play({ create, kernel, clock }) {
      await create();
      await kernel.control.restart("a", me);
      await clock.advance(20_000);
    },
    state: "stopping",
    summary:
      /^a is stopping: these processes could not be killed: python3 \(4711\)\. Cause: restarted by the operator\.$/,
    next: /^the daemon keeps retrying; once all its processes have exited, it will be started again$/,
    hint: /^find out what blocks pid 4711:/,
    evidence: [/^survivors: could not be killed: python3 \(pid 4711\)$/],
  },
  "a service names the plugin that hosts it": {
    async play({ ctx, kernel, end }) {
      await ctx.services.ensure("bus", {
        template: { command: "/bin/broker", restart: { policy: "never" } },
      });
      await kernel.agents.wait("svc:bus", "ready");
      await end(crash, "svc:bus");
      return "svc:bus";
    },
    state: "exited",
    next: /^nothing until plugin stage requests it$/,
    summary: /^svc:bus has exited .*It is a service of plugin stage\./,
    hint: /^plugin stage manages it: GET \/plugins shows .*GET \/agents\/svc:bus\/logs/,
  },
};

/** A spawner whose processes nothing ends. */
function undying(survivors: Survivor[]): MemorySpawner {
  const base = memorySpawner();
  return {
    ...base,
    spawn: async (spec, commit) => ({
      ...(await base.spawn(spec, commit)),
      exit: new Promise(() => {}),
      stop: async () => ({ survivors }),
    }),
  };
}

describe("why", () => {
  test.for(Object.entries(scenes))("%s", async ([, scene]) => {
    const stage = await onStage(scene.options);
    const answer = await stage.why((await scene.play(stage)) ?? "a");
    expect(whySchema.safeParse(answer).error).toBeUndefined();
    expect(answer.state).toBe(scene.state);
    if (scene.summary) expect(answer.summary).toMatch(scene.summary);
    if (scene.next) expect(answer.next).toMatch(scene.next);
    if (scene.hint) expect(answer.hint).toMatch(scene.hint);
    const evidence = answer.evidence.map(({ kind, text }) => `${kind}: ${text}`);
    for (const it of scene.evidence ?? []) expect(evidence).toContainEqual(expect.stringMatching(it));
    for (const kind of scene.without ?? []) expect(answer.evidence.map((it) => it.kind)).not.toContain(kind);
  });
});

describe("why after the daemon has ended", () => {
  /** The same journal, the next daemon. */
  async function nextDaemon(spawner: MemorySpawner, end: "stop" | "keep") {
    const state = memoryJournalState();
    const first = await onStage({ state });
    await first.create("Never");
    await first.kernel.stop({ agents: end, reason: "the daemon is stopping" });
    return onStage({ state, spawner });
  }

  test("an agent that ended with the daemon is started again, uncounted", async () => {
    const next = await nextDaemon(memorySpawner(), "stop");
    const answer = await next.why();
    expect(answer.summary).toMatch(/^a has been running .*: stopped with the daemon \(exit 0: success\)\.$/);
    expect(answer.last_runs).toMatchObject([{ cause: "daemon_stop", actor: "daemon" }]);
  });

  test("a run that ended with the machine has an unknown exit status", async () => {
    const spawner = forgetful({ status: { kind: "lost" }, cause: "host_reboot" });
    const answer = await (await nextDaemon(spawner, "keep")).why();
    expect(answer.summary).toMatch(
      /ended with the machine \(exited while unsupervised; exit status unknown\)/,
    );
    expect(answer.last_runs).toMatchObject([{ cause: "host_reboot" }]);
  });

  test("a lost run has an unknown exit status", async () => {
    const answer = await (await nextDaemon(forgetful({ status: { kind: "lost" } }), "keep")).why();
    expect(answer.state).toBe("exited");
    expect(answer.summary).toMatch(/exited while unsupervised; exit status unknown/);
  });

  test("a quarantined agent is explained to the operator alone", async () => {
    const gone = new OpenStarryError("spawn_failed", { detail: "its folder is gone" });
    const spawner = { ...memorySpawner(), adopt: () => Promise.reject(gone) };
    const next = await nextDaemon(spawner, "keep");
    const answer = await next.why();
    expect(whySchema.safeParse(answer).error).toBeUndefined();
    expect(answer).toMatchObject({
      state: "quarantined",
      summary: expect.stringMatching(
        /^a is quarantined: agent a could not be taken over: its folder is gone\. It may/,
      ),
      hint: "stop and delete it: DELETE /agents/a",
      evidence: [],
    });
    expect(answer).not.toHaveProperty("desired");
    const agent: Principal = { kind: "agent", id: "agent:b", agentId: "b", runId: "r" };
    await expect(next.why("a", agent)).rejects.toMatchObject({ code: "agent_not_found" });
  });

  test("a journal that cannot be read costs evidence, not the answer", async () => {
    const stage = await onStage();
    await stage.create("Never");
    await stage.end(crash);
    const gone = () => Promise.reject(new Error("the disk is gone"));
    Object.assign(stage.ctx.journal, { runs: gone, events: gone });
    const answer = await stage.why();
    expect(answer.evidence).toContainEqual({
      kind: "journal",
      text: expect.stringMatching(/cannot be read/),
    });
    expect(answer.last_runs).toMatchObject([{ cause: "self", status: expect.stringMatching(/^exit 3/) }]);
  });
});

describe("what an agent may know", () => {
  test("an agent learns about itself and its subtree, and nothing about others", async () => {
    const stage = await onStage();
    const { kernel, create, end, why } = stage;
    await create("Never", { agent_id: "indexer" });
    await end({ ...crash, note: "a reason that is not visible" }, "indexer");
    await create("Parent", { agent_id: "boss" });
    await create("Needs", { parent_id: "boss" });
    const as = (id: string): Principal => ({
      kind: "agent",
      id: `agent:${id}`,
      agentId: id,
      runId: kernel.agents.get(id)?.run_id ?? "",
    });
    expect((await why("boss", as("boss"))).state).toBe("running");
    const answer = await why("a", as("boss"));
    expect(answer.evidence).toEqual([{ kind: "requirement", text: "agent:indexer has exited" }]);
    expect(JSON.stringify(await why("a"))).toContain("a reason that is not visible");
  });

  test("the answer contains no values of variables or parameters", async () => {
    const templates = { Plain: { env: { KEY: "s3cret-1" }, params: { word: { type: "string" } } } };
    const stage = await onStage({ templates });
    await stage.create("Plain", { params: { word: "s3cret-2" }, env: { OTHER: "s3cret-3" } });
    await stage.end(crash);
    expect(JSON.stringify(await stage.why())).not.toContain("s3cret");
  });
});

describe("the words for an exit", () => {
  const ended = (status: object, cause: Cause = "self") =>
    exitInWords({ cause, success: false, ...status } as unknown as Exit);

  test.each<[string, object, Cause, string]>([
    [
      "an exit code without a usual meaning",
      { kind: "exited", code: 3 },
      "self",
      "exit 3: program-specific error",
    ],
    ["a conventional exit code", { kind: "exited", code: 78 }, "self", "exit 78: configuration error"],
    [
      "a shell's exit code for a signal",
      { kind: "exited", code: 143 },
      "self",
      "exit 143: terminated by SIGTERM, as reported by a shell",
    ],
    ["an observed signal", { kind: "signaled", signal: "SIGKILL" }, "self", "killed by SIGKILL"],
    [
      "a status that may be a signal or an exit code",
      { kind: "signaled", signal: "SIGTERM", raw_status: 143 },
      "self",
      "status 143: terminated by SIGTERM, or it exited with code 143 (indistinguishable)",
    ],
    [
      "a status that the daemon caused",
      { kind: "signaled", signal: "SIGTERM", raw_status: 143 },
      "stop_request",
      "status 143: terminated by SIGTERM",
    ],
    [
      "a signal without a usual meaning",
      { kind: "signaled", signal: "SIGUSR1" },
      "self",
      "killed by SIGUSR1",
    ],
    ["an unknown exit", { kind: "lost" }, "self", "exited while unsupervised; exit status unknown"],
  ])("%s is explained", (_, status, cause, words) => expect(ended(status, cause)).toBe(words));
});

describe("usage, output and events", () => {
  test("usage is shown of the live run and of the last one that ended", async () => {
    const { create, uses, clock, why } = await onStage();
    await create("Leaks");
    for (let second = 1; second <= 99; second++) {
      uses({ memory_bytes: second * MIB, cpu_percent: 50 });
      await clock.advance(1_000);
    }
    uses({ memory_bytes: 101 * MIB, cpu_percent: 0 });
    await clock.advance(1_000);
    uses({ memory_bytes: 5 * MIB });
    await clock.advance(1_000);
    const { curves, last_runs } = await why();
    expect(curves).toHaveLength(2);
    expect(curves[0]).toMatchObject({ samples: 1, memory: { sparkline: "█" }, cpu: { sparkline: "▁" } });
    const [, ended] = curves;
    expect(ended).toMatchObject({
      run_id: last_runs[0]?.run_id,
      since: "2026-01-01T00:00:01.000Z",
      until: "2026-01-01T00:01:40.000Z",
      samples: 100,
      memory: { min_bytes: MIB, max_bytes: 101 * MIB, last_bytes: 101 * MIB },
      cpu: { min_percent: 0, max_percent: 50, last_percent: 0 },
    });
    const line = [...(ended?.memory.sparkline ?? "")];
    expect(line).toEqual([...line].sort());
    expect([line.length <= 40, line[0], line.at(-1)]).toEqual([true, "▁", "█"]);
  });

  test("a long stderr leaves half of the output tail to stdout", async () => {
    const logs: MemorySpawner["logs"] = async function* () {
      const line = (stream: "stdout" | "stderr", text: string) => ({
        run_id: "r",
        stream,
        bytes: Buffer.from(text),
        cursor: "r:0",
      });
      yield line("stdout", "FATAL: real reason");
      for (let count = 0; count < 10; count++) yield line("stderr", `${count}`.repeat(1_000));
    };
    const { create, why } = await onStage({ spawner: { ...memorySpawner(), logs } });
    await create();
    const { output_tail = "" } = await why();
    expect(output_tail).toMatch(/^FATAL: real reason\n[\d\n]*9{1000}$/);
    expect(output_tail.length).toBeGreaterThan(4_000);
    expect(output_tail.length).toBeLessThanOrEqual(4_096);
  });

  test("events are listed oldest first, and those of the previous run are marked", async () => {
    const { create, end, uses, clock, why } = await onStage();
    await create("Burns");
    await clock.advance(1_000);
    await end(killed);
    await clock.advance(10_000);
    uses({ cpu_percent: 99 });
    await clock.advance(4_000);
    const happened = (await why()).evidence.filter(({ at }) => at !== undefined);
    expect(happened.map(({ kind }) => kind)).toEqual(["signal", "limit", "throttle"]);
    expect(happened.map(({ text }) => text.startsWith("in the previous run: "))).toEqual([
      true,
      false,
      false,
    ]);
  });

  test("many heartbeats do not hide earlier events", async () => {
    const { kernel, create, uses, clock, why } = await onStage();
    await create("Burns");
    uses({ cpu_percent: 99 });
    await clock.advance(4_000);
    const { run_id = "" } = kernel.agents.get("a") ?? {};
    for (let beat = 0; beat < 3_500; beat++) await kernel.reports.heartbeat("a", run_id, { progress: beat });
    const { evidence } = await why();
    expect(evidence.filter(({ kind, at }) => kind === "limit" && at !== undefined)).toHaveLength(1);
  });

  test("a former agent with the same ID is not mentioned", async () => {
    const { kernel, create, uses, clock, why } = await onStage();
    await create("LeaksAndStops");
    uses({ memory_bytes: 120 * MIB });
    await clock.advance(1_000);
    await kernel.dispatch("agents.delete", { agent_id: "a" }, OPERATOR);
    uses({ memory_bytes: MIB });
    await create("Never");
    await clock.advance(1_000);
    const answer = await why();
    expect([answer.evidence, answer.last_runs]).toEqual([[], []]);
    expect(answer.curves).toHaveLength(1);
  });
});
