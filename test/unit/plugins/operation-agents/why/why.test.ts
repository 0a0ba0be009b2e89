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
import { exitInWords } from "../../../../../plugins/operation-agents/why/exit-words.js";
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
  /** What is told, each by `kind: text`. */
  evidence?: RegExp[];
  /** Kinds of evidence that are not there. */
  without?: string[];
}

const scenes: Record<string, Scene> = {
  "a crash loop": {
    async play({ create, end, clock }) {
      await create("Loops");
      for (let run = 0; run < 3; run++) {
        await end(crash);
        await clock.advance(5_000);
      }
    },
    state: "failed",
    summary:
      /^a has failed and was given up: it exited with code 3; crash loop: 3 restarts would be within 1m, at most 2 allowed\. Its last run ended 5s ago, after 3s: by itself \(exit 3: a failure of the program's own kind\)\. Of its last 3 runs 3 failed\. It was restarted automatically 2 times\.$/,
    next: /^nothing until somebody starts it$/,
    hint: /^read its output \(GET \/agents\/a\/logs\) and put right what makes it fail, then POST \/agents\/a\/start/,
  },
  "a backoff": {
    async play({ create, end, clock }) {
      await create("Loops");
      await clock.advance(42_000);
      await end(crash);
      await clock.advance(400);
    },
    state: "backoff",
    summary:
      /^a has ended and waits before it is started again: it exited with code 3; 1 restart within 1m, at most 2 allowed; next start in 1s\./,
    next: /^it is started again at 2026-01-01T00:00:43\.000Z \(in 600ms\)$/,
    hint: /^read its output .*; POST \/agents\/a\/start does not wait$/,
    evidence: [
      /^restarts: of its restarts are used up: 1 of 2 restarts within 1m, 1 of 6 failures in a row$/,
    ],
  },
  "an end by the kernel's hand": {
    async play({ create, end }) {
      await create("Never");
      const note = "the kernel killed 1 of its processes for want of memory (memory_max 100MiB)";
      await end({ ...killed, cause: "oom", note });
    },
    state: "failed",
    summary:
      /the operating system killed it for its memory \(status 137: killed by SIGKILL, which cannot be refused\)/,
    hint: /raise memory_max/,
    evidence: [/^oom: it was killed by SIGKILL \(status 137\); the kernel killed 1 .*memory_max 100MiB\)$/],
    without: ["signal"],
  },
  "a SIGKILL that nobody here sent": {
    async play({ create, end }) {
      await create("Never");
      await end(killed);
    },
    state: "exited",
    summary:
      /by itself \(status 137: killed by SIGKILL, which cannot be refused; or it ended itself with code 137, which looks the same\)/,
    hint: /^find out who sent SIGKILL: .*, then POST \/agents\/a\/start$/,
    evidence: [/^signal: the daemon did not send SIGKILL: another program or a person did, or the kernel, /],
    without: ["oom"],
  },
  "a stop by a policy": {
    async play({ create, uses, clock }) {
      await create("LeaksAndStops");
      for (const memory of [20, 60, 90, 120]) {
        uses({ memory_bytes: memory * MIB, cpu_percent: memory });
        await clock.advance(1_000);
      }
    },
    state: "stopped",
    summary: /^a is stopped: memory 120MiB over memory_max 100MiB; .*plugin policy-resources had it ended/,
    next: /^nothing until somebody starts it$/,
    hint: /^see to what it was ended for, or change the rule, then POST \/agents\/a\/start/,
    evidence: [
      /^limit: plugin policy-resources saw: memory 120MiB over memory_max 100MiB, and had it stopped$/,
      /^ending: plugin policy-resources had it told to end \(SIGTERM; its grace is 10s\): memory 120MiB over .*; it was gone 0ms later$/,
      /^limit: memory_max 100MiB, held by a policy that looks at intervals, then stop$/,
    ],
  },
  "a restart by a policy: what happened to the run before is told": {
    async play({ create, uses, clock }) {
      await create("Leaks");
      uses({ memory_bytes: 120 * MIB });
      await clock.advance(1_000);
      uses({ memory_bytes: 10 * MIB });
      await clock.advance(5_000);
    },
    state: "running",
    summary:
      /^a has been running for 5s .*Its last run ended 5s ago, after 1s: plugin policy-resources had it ended/,
    evidence: [
      /^limit: in the run before: plugin policy-resources saw: memory 120MiB .*, and ended the run, which counts as a failure$/,
      /^limit: memory_max 100MiB, held by a policy that looks at intervals, then restart; 10MiB now$/,
      /^restarts: .*1 of 5 restarts within 1m/,
    ],
  },
  "a CPU that is slowed down": {
    async play({ create, uses, clock }) {
      await create("Burns");
      uses({ cpu_percent: 99 });
      await clock.advance(4_000);
    },
    state: "running",
    summary: /Its CPU is slowed down to 50% of a core by plugin policy-resources: CPU 99% over cpu_max 50%/,
    evidence: [
      /^limit: plugin policy-resources saw: CPU 99% over cpu_max 50%, .*, and slowed its CPU down$/,
      /^throttle: plugin policy-resources slowed its CPU down to 50% of a core \(quota\): CPU 99%/,
    ],
  },
  "a budget that is used up, within its grace": {
    options: { plugins: [budget()] },
    async play({ create, kernel, clock }) {
      await create("Spends");
      const usage = { input_tokens: 1_100, output_tokens: 0, cost_usd: 0 };
      await kernel.reports.heartbeat("a", kernel.agents.get("a")?.run_id ?? "", { usage });
      await clock.advance(10_000);
    },
    state: "running",
    next: /^it is stopped at 2026-01-01T00:00:30\.000Z \(in 20s\), for its tokens_max; then nothing until somebody starts it$/,
    hint: /^wait until it is stopped; to have it go on then, raise tokens_max in its template, then POST \/agents\/a\/start$/,
    evidence: [
      /^limit: plugin policy-budget saw: 1100 tokens .*; it is stopped at .*:30\.000Z, and will have it stopped$/,
    ],
  },
  "a budget that is used up, after its grace": {
    options: { plugins: [budget()] },
    async play({ create, kernel, clock }) {
      await create("Spends");
      const usage = { input_tokens: 1_100, output_tokens: 0, cost_usd: 0 };
      await kernel.reports.heartbeat("a", kernel.agents.get("a")?.run_id ?? "", { usage });
      await clock.advance(30_000);
    },
    state: "stopped",
    evidence: [/^limit: plugin policy-budget saw: 1100 tokens .*:30\.000Z, and had it stopped$/],
  },
  "a budget that was used up by a run which ended by itself": {
    options: { plugins: [budget()] },
    async play({ create, end, kernel, clock }) {
      await create("Spends");
      const usage = { input_tokens: 1_100, output_tokens: 0, cost_usd: 0 };
      await kernel.reports.heartbeat("a", kernel.agents.get("a")?.run_id ?? "", { usage });
      await clock.advance(10_000);
      await end({ status: { kind: "exited", code: 0 } });
    },
    state: "exited",
    evidence: [/^limit: plugin policy-budget saw: 1100 tokens .*:30\.000Z, and was to have it stopped$/],
  },
  "limits, and who holds them": {
    options: { spawner: memorySpawner({ holds: true }) },
    async play({ create, uses, clock }) {
      await create("Limited");
      uses({ memory_bytes: 10 * MIB });
      await clock.advance(60_000);
    },
    state: "running",
    next: /^it may run until 2026-01-01T01:00:00\.000Z \(in 59m\), its run_time_max; if it ends, its restart rules decide \(on-failure, at most 5 restarts within 1m\)$/,
    evidence: [
      /^limit: memory_max 100MiB, held by the operating system, then restart; 10MiB now$/,
      /^limit: open_files_max 100, held by the operating system$/,
      /^limit: run_time_max 1h, held by a policy that looks at intervals, then stop$/,
    ],
  },
  "a start that takes long": {
    async play({ create, probes, clock }) {
      await create("Ready");
      probes[0]?.report.starting({ reason: "the port answers connection refused" });
      await clock.advance(12_000);
    },
    state: "starting",
    summary: /^a was started 12s ago .* and is not ready yet: the port answers connection refused\.$/,
    next: /^it becomes running once it says that it is ready; after 30s without that it is ended \(18s left\)$/,
    evidence: [/^readiness: probe spoken, of 30s, saw last: the port answers connection refused$/],
  },
  "a start that took too long, with the probe's last word": {
    async play({ create, probes, clock }) {
      await create("Ready");
      probes[0]?.report.starting({ reason: "the port answers connection refused" });
      await clock.advance(31_000);
    },
    state: "failed",
    summary: /^a has failed .*it was not ready within 30s: the port answers connection refused/,
    hint: /^read its output .*; see to what its readiness probe saw, or give it a longer timeout, then POST/,
    evidence: [/^readiness: it was not ready within 30s: the port answers connection refused; it /],
  },
  "a run that was found unhealthy": {
    async play({ create, probes, clock }) {
      await create("Lives");
      probes[0]?.report.healthy();
      await clock.advance(1_000);
      probes[0]?.report.unhealthy("GET /healthz answered 500, three times");
      await clock.advance(1_000);
    },
    state: "failed",
    summary: /it was found unhealthy/,
    hint: /what it did last before it was found unhealthy/,
    evidence: [
      /^health: it was unknown and is healthy$/,
      /^health: it was healthy and is unhealthy: GET \/healthz answered 500, three times$/,
    ],
  },
  "a run that is watched": {
    async play({ create, probes, clock }) {
      await create("Lives");
      probes[0]?.report.healthy();
      await clock.advance(1_000);
    },
    state: "running",
    next: /^it runs on; if it ends, it is not started again$/,
    hint: /^nothing has to be done$/,
    evidence: [/^liveness: probe spoken says healthy$/],
  },
  "one that does not get on": {
    async play({ create, clock }) {
      await create("Progresses");
      await clock.advance(600_000);
    },
    state: "running",
    summary: /^a has been running for 10m .*: no progress for 10m\.$/,
    next: /^it is interrupted at 2026-01-01T00:11:00\.000Z \(in 1m\), unless it gets on before that$/,
    hint: /^wait, and look at what it prints: GET \/agents\/a\/logs$/,
    evidence: [/^progress: no progress for 10m: it was nudged by a signal$/],
  },
  "a wait for an agent that has failed": {
    async play({ create, end }) {
      await create("Never", { agent_id: "indexer" });
      await end(crash, "indexer");
      await create("Needs");
    },
    state: "pending",
    summary: /^a waits to be started: for agent:indexer, which is exited\.$/,
    next: /^it is started as soon as agent indexer is running; that does not come about by itself$/,
    hint: /^GET \/agents\/indexer\/why tells what became of it; POST \/agents\/indexer\/start starts it again$/,
    evidence: [/^requirement: agent:indexer is exited: it exited with code 3; its restart policy is never$/],
  },
  "a wait for an agent that is on its way": {
    async play({ create }) {
      await create("Ready", { agent_id: "indexer" });
      await create("Needs");
    },
    state: "pending",
    next: /^it is started as soon as agent indexer is running$/,
    hint: /^wait, or see to what it waits for/,
    evidence: [/^requirement: agent:indexer is starting$/],
  },
  "a wait for an agent that does not exist": {
    play: ({ create }) => create("Needs"),
    state: "pending",
    hint: /^create agent indexer with POST \/agents; or DELETE \/agents\/a$/,
    evidence: [/^requirement: agent:indexer does not exist$/],
  },
  "a wait for a service": {
    async play({ create, ctx }) {
      const health = () => "it is not running";
      ctx.services.publishEndpoint({ name: "bus", protocol: "test", health, urlFor: () => "test://" });
      await create("NeedsBus");
    },
    state: "pending",
    next: /^it is started as soon as bus is there$/,
    evidence: [/^requirement: bus is not there: it is not running$/],
  },
  "a hold": {
    async play({ ctx, kernel }) {
      await kernel.control.create({ agent_id: "a", template_id: "Plain", start: false }, me);
      await ctx.control.hold("a", { actor: "plugin:policy-budget", reason: "the day's money is spent" });
      await kernel.control.start("a", me);
      await kernel.agents.wait("a", "launched");
    },
    state: "pending",
    summary: /^a waits to be started: held by plugin:policy-budget: the day's money is spent\.$/,
    next: /^it is started once plugin policy-budget releases it$/,
    hint: /^wait, or ask whoever holds it \(plugin:policy-budget\)/,
    evidence: [/^hold: the day's money is spent$/],
  },
  "a start that was put off": {
    async play({ create, ctx, clock }) {
      ctx.hooks.beforeSpawn.tap("quiet", () => {
        throw new SpawnDeferred("it is quiet from 22:00 to 6:00", { retryAfterMs: 60_000 });
      });
      await create();
      await clock.advance(10_000);
    },
    state: "pending",
    summary: /^a waits to be started: it is quiet from 22:00 to 6:00\.$/,
    next: /^its start is tried again at 2026-01-01T00:01:00\.000Z \(in 50s\)$/,
    evidence: [/^deferral: it is quiet from 22:00 to 6:00$/],
  },
  "a start that was put off, and had to wait for something meanwhile": {
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
    summary: /^a waits to be started: it is quiet\.$/,
    next: /^its start is tried again at 2026-01-01T00:01:00\.000Z \(in 49s\)$/,
    without: ["requirement"],
  },
  "a wait that says itself that it is one": {
    async play({ create, ctx }) {
      ctx.hooks.beforeSpawn.tap("pressure", () => {
        throw new SpawnDeferred("waits: memory pressure: 91% in use", { retryAfterMs: 60_000 });
      });
      await create();
    },
    state: "pending",
    summary: /^a waits to be started: memory pressure: 91% in use\.$/,
  },
  "a single restart": {
    async play({ create }) {
      await create("Once");
    },
    state: "running",
    next: /^it runs on; if it ends, its restart rules decide \(on-failure, at most 1 restart within 1m\)$/,
  },
  "a start that failed": {
    async play({ create, kernel }) {
      const detail = "no such program: /bin/agent";
      kernel.spawner.failNext(new OpenStarryError("command_not_found", { detail }));
      await create("Never");
    },
    state: "failed",
    summary:
      /Its last start, 0ms ago, failed: it could not be started: no such program: \/bin\/agent \(command_not_found\)\.$/,
    hint: /^put right what kept it from starting, then POST/,
  },
  "a child whose parent was deleted": {
    async play({ create, kernel, clock }) {
      await create("Parent", { agent_id: "boss" });
      await create("Plain", { parent_id: "boss" });
      await kernel.control.remove("boss", me);
      await kernel.agents.wait("a", "ended");
      await clock.advance(1_000);
    },
    state: "stopped",
    summary: /^a is stopped: its parent boss is over.*the agent that started it is over/,
  },
  "a child whose parent has ended": {
    async play({ create, end, kernel }) {
      await create("Parent", { agent_id: "boss" });
      await create("Plain", { parent_id: "boss" });
      await end({ kind: "exited", code: 0 }, "boss");
      await kernel.agents.wait("a", "ended");
    },
    state: "stopped",
    evidence: [/^parent: agent boss started it, and is exited: it exited with code 0; /],
  },
  "a stop by an agent": {
    async play({ create, kernel, clock }) {
      await create();
      await clock.advance(3_000);
      await kernel.control.stop("a", { actor: "agent:boss", reason: "agent:boss does not need it" });
      await kernel.agents.wait("a", "ended");
    },
    state: "stopped",
    summary: /^a is stopped: agent:boss does not need it; .*agent boss asked for it \(exit 0: success\)\.$/,
    hint: /^start it with POST \/agents\/a\/start, or forget it with DELETE \/agents\/a$/,
  },
  "an end that is under way": {
    options: { spawner: memorySpawner({ stubborn: ["a"] }) },
    async play({ create, kernel, clock }) {
      await create();
      await kernel.control.stop("a", { actor: "agent:boss", reason: "it is not needed" });
      await clock.advance(3_000);
    },
    state: "stopping",
    summary: /^a is being ended: it is not needed\. It is wanted stopped\. Why: agent boss asked for it\.$/,
    next: /^once all its processes are gone it is stopped; it was sent SIGTERM, and is killed at 2026-01-01T00:00:10\.000Z at the latest \(its grace is 10s by its template\)$/,
    hint: /^wait; DELETE \/agents\/a\?force=true/,
    evidence: [/^ending: agent boss had it told to end \(SIGTERM; its grace is 10s\): it is not needed$/],
  },
  "processes that nothing ends": {
    options: { spawner: undying([{ pid: 4711, name: "python3" }]) },
    async play({ create, kernel, clock }) {
      await create();
      await kernel.control.restart("a", me);
      await clock.advance(20_000);
    },
    state: "stopping",
    summary:
      /^a is being ended: these processes could not be killed: python3 \(4711\)\. Why: the operator asked for a restart\.$/,
    next: /^the daemon goes on trying; once all its processes are gone it is started again$/,
    hint: /^look at what these hang in \(pid 4711\)/,
    evidence: [/^survivors: could not be ended: python3 \(pid 4711\)$/],
  },
  "a service": {
    async play({ ctx, kernel, end }) {
      await ctx.services.ensure("bus", {
        template: { command: "/bin/broker", restart: { policy: "never" } },
      });
      await kernel.agents.wait("svc:bus", "ready");
      await end(crash, "svc:bus");
      return "svc:bus";
    },
    state: "exited",
    next: /^nothing until plugin stage asks for it$/,
    summary: /^svc:bus has ended .*It is a service of plugin stage\./,
    hint: /^plugin stage sees to it, and nobody else may: GET \/plugins shows .*GET \/agents\/svc:bus\/logs/,
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
    const told = await stage.why((await scene.play(stage)) ?? "a");
    expect(whySchema.safeParse(told).error).toBeUndefined();
    expect(told.state).toBe(scene.state);
    if (scene.summary) expect(told.summary).toMatch(scene.summary);
    if (scene.next) expect(told.next).toMatch(scene.next);
    if (scene.hint) expect(told.hint).toMatch(scene.hint);
    const evidence = told.evidence.map(({ kind, text }) => `${kind}: ${text}`);
    for (const it of scene.evidence ?? []) expect(evidence).toContainEqual(expect.stringMatching(it));
    for (const kind of scene.without ?? []) expect(told.evidence.map((it) => it.kind)).not.toContain(kind);
  });
});

describe("over the ends of daemons", () => {
  /** The same journal, the next daemon. */
  async function nextDaemon(spawner: MemorySpawner, end: "stop" | "keep") {
    const state = memoryJournalState();
    const first = await onStage({ state });
    await first.create("Never");
    await first.kernel.stop({ agents: end, reason: "the daemon is stopping" });
    return onStage({ state, spawner });
  }

  test("the daemon was stopped: it is started again, uncounted", async () => {
    const next = await nextDaemon(memorySpawner(), "stop");
    const told = await next.why();
    expect(told.summary).toMatch(/^a has been running .*: with the daemon \(exit 0: success\)\.$/);
    expect(told.last_runs).toMatchObject([{ cause: "daemon_stop", actor: "daemon" }]);
  });

  test("the machine was started anew", async () => {
    const spawner = forgetful({ status: { kind: "lost" }, cause: "host_reboot" });
    const told = await (await nextDaemon(spawner, "keep")).why();
    expect(told.summary).toMatch(/with the machine \(gone: it ended while nobody could see how\)/);
    expect(told.last_runs).toMatchObject([{ cause: "host_reboot" }]);
  });

  test("nobody can know how it ended", async () => {
    const told = await (await nextDaemon(forgetful({ status: { kind: "lost" } }), "keep")).why();
    expect(told.state).toBe("exited");
    expect(told.summary).toMatch(/gone: it ended while nobody could see how/);
  });

  test("one in quarantine: what is wrong with it, for the operator alone", async () => {
    const gone = new OpenStarryError("spawn_failed", { detail: "its folder is gone" });
    const spawner = { ...memorySpawner(), adopt: () => Promise.reject(gone) };
    const next = await nextDaemon(spawner, "keep");
    const told = await next.why();
    expect(whySchema.safeParse(told).error).toBeUndefined();
    expect(told).toMatchObject({
      state: "quarantined",
      summary: expect.stringMatching(
        /^a is in quarantine: agent a could not be taken over: its folder is gone\. It may/,
      ),
      hint: "DELETE /agents/a ends what lives of it and forgets it",
      evidence: [],
    });
    expect(told).not.toHaveProperty("desired");
    const agent: Principal = { kind: "agent", id: "agent:b", agentId: "b", runId: "r" };
    await expect(next.why("a", agent)).rejects.toMatchObject({ code: "agent_not_found" });
  });

  test("a journal that cannot be read takes the evidence, and not the answer", async () => {
    const stage = await onStage();
    await stage.create("Never");
    await stage.end(crash);
    const gone = () => Promise.reject(new Error("the disk is gone"));
    Object.assign(stage.ctx.journal, { runs: gone, events: gone });
    const told = await stage.why();
    expect(told.evidence).toContainEqual({
      kind: "journal",
      text: expect.stringMatching(/cannot be read/),
    });
    expect(told.last_runs).toMatchObject([{ cause: "self", status: expect.stringMatching(/^exit 3/) }]);
  });
});

describe("who may know", () => {
  test("an agent asks about itself and what is below it, and learns nothing of others by that", async () => {
    const stage = await onStage();
    const { kernel, create, end, why } = stage;
    await create("Never", { agent_id: "indexer" });
    await end({ ...crash, note: "the reason of a stranger" }, "indexer");
    await create("Parent", { agent_id: "boss" });
    await create("Needs", { parent_id: "boss" });
    const as = (id: string): Principal => ({
      kind: "agent",
      id: `agent:${id}`,
      agentId: id,
      runId: kernel.agents.get(id)?.run_id ?? "",
    });
    expect((await why("boss", as("boss"))).state).toBe("running");
    const told = await why("a", as("boss"));
    expect(told.evidence).toEqual([{ kind: "requirement", text: "agent:indexer is exited" }]);
    expect(JSON.stringify(await why("a"))).toContain("the reason of a stranger");
  });

  test("values of the environment and parameters are nowhere in it", async () => {
    const templates = { Plain: { env: { KEY: "s3cret-1" }, params: { word: { type: "string" } } } };
    const stage = await onStage({ templates });
    await stage.create("Plain", { params: { word: "s3cret-2" }, env: { OTHER: "s3cret-3" } });
    await stage.end(crash);
    expect(JSON.stringify(await stage.why())).not.toContain("s3cret");
  });
});

describe("how a run ended", () => {
  const ended = (status: object, cause: Cause = "self") =>
    exitInWords({ cause, success: false, ...status } as unknown as Exit);

  test.each<[string, object, Cause, string]>([
    ["a code of its own", { kind: "exited", code: 3 }, "self", "exit 3: a failure of the program's own kind"],
    ["a code by convention", { kind: "exited", code: 78 }, "self", "exit 78: its configuration was wrong"],
    [
      "a shell's word for a signal",
      { kind: "exited", code: 143 },
      "self",
      "exit 143: what a shell says of a program that was ended by SIGTERM, the usual request to end",
    ],
    [
      "a signal that was seen",
      { kind: "signaled", signal: "SIGKILL" },
      "self",
      "killed by SIGKILL, which cannot be refused",
    ],
    [
      "a status that may be both",
      { kind: "signaled", signal: "SIGTERM", raw_status: 143 },
      "self",
      "status 143: ended by SIGTERM, the usual request to end; or it ended itself with code 143, which looks the same",
    ],
    [
      "a status that the daemon brought about",
      { kind: "signaled", signal: "SIGTERM", raw_status: 143 },
      "stop_request",
      "status 143: ended by SIGTERM, the usual request to end",
    ],
    ["a signal without a usual meaning", { kind: "signaled", signal: "SIGUSR1" }, "self", "ended by SIGUSR1"],
    ["nobody knows", { kind: "lost" }, "self", "gone: it ended while nobody could see how"],
  ])("%s", (_, status, cause, words) => expect(ended(status, cause)).toBe(words));
});

describe("what is told of runs", () => {
  test("curves: of the run that lives, and of the one before its end", async () => {
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

  test("its last lines: a long stderr leaves half of the room to stdout", async () => {
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

  test("what happened, oldest first: the end of the run before stands before what happened since", async () => {
    const { create, end, uses, clock, why } = await onStage();
    await create("Burns");
    await clock.advance(1_000);
    await end(killed);
    await clock.advance(10_000);
    uses({ cpu_percent: 99 });
    await clock.advance(4_000);
    const happened = (await why()).evidence.filter(({ at }) => at !== undefined);
    expect(happened.map(({ kind }) => kind)).toEqual(["signal", "limit", "throttle"]);
    expect(happened.map(({ text }) => text.startsWith("in the run before: "))).toEqual([true, false, false]);
  });

  test("events of heartbeats between do not hide what was seen long before", async () => {
    const { kernel, create, uses, clock, why } = await onStage();
    await create("Burns");
    uses({ cpu_percent: 99 });
    await clock.advance(4_000);
    const { run_id = "" } = kernel.agents.get("a") ?? {};
    for (let beat = 0; beat < 3_500; beat++) await kernel.reports.heartbeat("a", run_id, { progress: beat });
    const { evidence } = await why();
    expect(evidence.filter(({ kind, at }) => kind === "limit" && at !== undefined)).toHaveLength(1);
  });

  test("nothing of a former agent of the same id", async () => {
    const { kernel, create, uses, clock, why } = await onStage();
    await create("LeaksAndStops");
    uses({ memory_bytes: 120 * MIB });
    await clock.advance(1_000);
    await kernel.dispatch("agents.delete", { agent_id: "a" }, OPERATOR);
    uses({ memory_bytes: MIB });
    await create("Never");
    await clock.advance(1_000);
    const told = await why();
    expect([told.evidence, told.last_runs]).toEqual([[], []]);
    expect(told.curves).toHaveLength(1);
  });
});
