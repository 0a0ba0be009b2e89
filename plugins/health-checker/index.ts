import { z } from "zod";
import {
  type Agent,
  definePlugin,
  isOpenStarryError,
  OpenStarryError,
  type PluginContext,
  type Probe,
  type ProbeRole,
  probe,
  probeRunner,
  type Template,
  validateSync,
} from "../../core/index.js";
import { createWatches, type WatchPlan } from "./watches.js";

/** Runs the probes that templates name, and tells the kernel what they see. */
export default definePlugin({
  name: "health-checker",
  apiVersion: 1,
  optional: [probe],
  provides: [probeRunner],
  options: z.strictObject({}),
  setup(ctx) {
    const watches = createWatches({
      ready: ({ agent, runId }) => tell(ctx, agent, ctx.agents.markReady(agent.agent_id, runId)),
      health: ({ agent, runId }, health, reason) =>
        tell(ctx, agent, ctx.agents.markHealth(agent.agent_id, runId, health, reason)),
      failed: ({ agent }, role, error) => reportFault(ctx, agent, role, error),
    });
    ctx.provide(probeRunner, { name: ctx.name });
    /** Runs adopted before the probes are there to watch them. */
    let early: WatchPlan["agent"][] | undefined = [];
    const begin = (agent: Agent) => {
      const plan = planFor(ctx, agent);
      if (plan) watches.begin(plan);
    };

    ctx.hooks.afterSpawn.tap("watch", ({ agent }) => (early ? void early.push(agent) : begin(agent)));
    ctx.hooks.onReady.tap("watch for liveness", ({ run_id }) => watches.becameReady(run_id));
    ctx.hooks.afterExit.tap("stop watching", ({ run_id }) => {
      early = early?.filter((agent) => agent.run_id !== run_id);
      watches.end(run_id);
    });
    return {
      start() {
        const adopted = early ?? [];
        early = undefined;
        for (const agent of adopted) begin(ctx.agents.get(agent.agent_id) ?? agent);
      },
      stop: watches.endAll,
    };
  },
});

/** What the agent's template wants watched; `undefined` when that is nothing. */
function planFor(ctx: PluginContext, agent: Agent): WatchPlan | undefined {
  const template = ctx.agents.template(agent.agent_id)?.template;
  if (agent.run_id === undefined || !(template?.readiness || template?.liveness)) return undefined;
  const probes: WatchPlan["probes"] = {};
  for (const role of ["readiness", "liveness"] as const) {
    try {
      const found = probeFor(ctx, template, role);
      if (found) probes[role] = found;
    } catch (error) {
      reportFault(ctx, agent, role, error);
    }
  }
  return { agent, runId: agent.run_id, probes };
}

function probeFor(
  ctx: PluginContext,
  template: Template,
  role: ProbeRole,
): { probe: Probe; options: unknown } | undefined {
  const section: Record<string, unknown> | undefined = template[role];
  if (!section) return undefined;
  const { type, timeoutMs: _kernels, ...options } = section;
  const found = ctx.has(probe) ? ctx.use(probe).get(String(type)) : undefined;
  if (!found?.roles.includes(role)) {
    throw new OpenStarryError("template_invalid", {
      detail: `no plugin provides the ${role} probe "${type}"`,
      hint: "add the plugin that provides it to the config again",
    });
  }
  const what = `${role} of template ${template.template_id}`;
  return { probe: found, options: validateSync(found.options, options, { code: "template_invalid", what }) };
}

/** Not awaited by the probe: what it sees next does not depend on it. */
function tell(ctx: PluginContext, agent: Agent, told: Promise<void>): void {
  told.catch((error: unknown) => {
    // The agent was deleted in the meantime.
    if (isOpenStarryError(error) && error.code === "agent_not_found") return;
    ctx.log.warn({ agent_id: agent.agent_id, err: error }, "a probe's report could not be passed on");
  });
}

function reportFault(ctx: PluginContext, agent: Agent, role: ProbeRole, error: unknown): void {
  const why = error instanceof Error ? error.message : String(error);
  ctx.log.error({ agent_id: agent.agent_id, role, err: error }, "a probe cannot watch");
  ctx.daemon.degraded(`agent ${agent.agent_id} is not watched for ${role}: ${why}`);
}
