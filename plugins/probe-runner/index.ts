import { z } from "zod";
import {
  type Agent,
  type ChosenProbe,
  definePlugin,
  isOpenStarryError,
  type PluginContext,
  type ProbeRole,
  type ProgressStep,
  probe,
  probeRunner,
  templateSection,
} from "../../core/index.js";
import { createPerRunHealth } from "../kit/per-run-health.js";
import { chooseProbe } from "./choose-probe.js";
import { createProgressWatch, type ProgressPlan } from "./progress.js";
import { watchSections } from "./sections.js";
import { createWatches, type WatchPlan } from "./watches.js";

/** Runs the probes that templates name, sees that runs get on, and tells the kernel what it sees. */
export default definePlugin({
  name: "probe-runner",
  apiVersion: 1,
  optional: [probe],
  provides: [probeRunner, templateSection],
  options: z.strictObject({}),
  setup(ctx) {
    for (const section of watchSections(ctx)) ctx.provide(templateSection, section);
    const faults = createPerRunHealth(ctx.daemon);
    const failed = ({ agent, runId }: Watched, role: ProbeRole, error: unknown) => {
      const why = error instanceof Error ? error.message : String(error);
      ctx.log.error({ agent_id: agent.agent_id, role, err: error }, "a probe cannot watch");
      faults.add(runId, `agent ${agent.agent_id} is not watched for ${role}: ${why}`);
    };
    const watches = createWatches({
      ready: ({ agent, runId }) => tell(ctx, agent, ctx.reports.ready(agent.agent_id, runId)),
      starting: ({ agent, runId }, note) =>
        tell(ctx, agent, ctx.reports.starting(agent.agent_id, runId, note)),
      health: ({ agent, runId }, health, reason) =>
        tell(ctx, agent, ctx.reports.health(agent.agent_id, runId, health, reason)),
      failed,
    });
    const progress = createProgressWatch(ctx.clock, (plan, step, reason) =>
      tell(ctx, plan.agent, takeStep(ctx, plan, step, reason)),
    );
    ctx.provide(probeRunner, { name: ctx.name, probeOf: (agentId, role) => probeOf(ctx, agentId, role) });
    /** Runs adopted before the probes are there to watch them. */
    let early: Agent[] | undefined = [];
    const begin = (agent: Agent) => {
      const plan = planFor(ctx, agent, failed);
      if (plan) watches.begin(plan);
      if (agent.state !== "starting") expectProgress(agent);
    };
    const expectProgress = (agent: Agent) => {
      const rules = ctx.agents.template(agent.agent_id)?.template.progress;
      if (rules && agent.run_id !== undefined) progress.begin({ agent, runId: agent.run_id, rules });
    };

    ctx.hooks.afterSpawn.tap("watch", ({ agent }) => (early ? void early.push(agent) : begin(agent)));
    ctx.hooks.onReady.tap("watch for liveness", ({ agent, run_id }) => {
      watches.becameReady(run_id);
      expectProgress(agent);
    });
    ctx.hooks.afterExit.tap("stop watching", ({ run_id }) => {
      early = early?.filter((agent) => agent.run_id !== run_id);
      watches.end(run_id);
      faults.end(run_id);
      progress.end(run_id);
    });
    let stopListening = () => {};
    return {
      start() {
        stopListening = ctx.events.on("agent.heartbeat", progress.hear);
        const adopted = early ?? [];
        early = undefined;
        for (const agent of adopted) begin(ctx.agents.get(agent.agent_id) ?? agent);
      },
      stop() {
        stopListening();
        watches.endAll();
        progress.endAll();
      },
    };
  },
});

function probeOf(ctx: PluginContext, agentId: string, role: ProbeRole): ChosenProbe | undefined {
  const stored = ctx.agents.details(agentId)?.stored;
  return stored && chooseProbe(ctx, stored.template, role, { agentId, params: stored.params });
}

type Watched = Pick<WatchPlan, "agent" | "runId">;

/** What the agent's template wants watched; `undefined` when that is nothing. */
function planFor(
  ctx: PluginContext,
  agent: Agent,
  failed: (run: Watched, role: ProbeRole, error: unknown) => void,
): WatchPlan | undefined {
  const runId = agent.run_id;
  if (runId === undefined) return undefined;
  const probes: WatchPlan["probes"] = {};
  let wanted = false;
  for (const role of ["readiness", "liveness"] as const) {
    try {
      const chosen = probeOf(ctx, agent.agent_id, role);
      if (chosen) probes[role] = chosen;
      wanted ||= chosen !== undefined;
    } catch (error) {
      wanted = true;
      failed({ agent, runId }, role, error);
    }
  }
  return wanted ? { agent, runId, probes } : undefined;
}

/** Every step is recorded before it is taken: it may be the run's last. */
async function takeStep(
  ctx: PluginContext,
  { agent: { agent_id }, runId, rules }: ProgressPlan,
  step: ProgressStep,
  reason: string,
): Promise<void> {
  const intent = { actor: `plugin:${ctx.name}`, reason, run_id: runId };
  // It may be ending already, and is left alone then.
  if (ctx.agents.get(agent_id)?.state !== "running") return;
  await ctx.reports.progress(agent_id, runId, step, reason);
  if (step === "nudge") await ctx.control.signal(agent_id, rules.nudge, intent);
  if (step === "interrupt") await ctx.control.signal(agent_id, "SIGINT", intent);
  if (step === "restart") await ctx.reports.health(agent_id, runId, "unhealthy", reason);
}

/** Not awaited by the probe: what it sees next does not depend on it. */
function tell(ctx: PluginContext, agent: Agent, told: Promise<void>): void {
  told.catch((error: unknown) => {
    // The agent was deleted, or its process has ended, in the meantime.
    if (isOpenStarryError(error) && ["agent_not_found", "agent_not_running"].includes(error.code)) return;
    ctx.log.warn({ agent_id: agent.agent_id, err: error }, "a probe's report could not be passed on");
  });
}
