import { z } from "zod";
import {
  defineOperation,
  type Operation,
  type PluginContext,
  type Principal,
  type Resources,
} from "../../core/index.js";
import { countByState } from "./status.js";

/** Figures in the text format of Prometheus (version 0.0.4). */
export function metricsOperation(ctx: PluginContext): Operation<never> {
  return defineOperation({
    name: "daemon.metrics",
    summary: "Figures about the daemon and its agents in the text format of Prometheus.",
    scope: "any",
    input: z.strictObject({}),
    output: z.string(),
    http: { method: "GET", path: "/metrics", contentType: "text/plain; version=0.0.4; charset=utf-8" },
    handler: async (_, { principal }) => exposition(ctx, principal),
  });
}

function exposition(ctx: PluginContext, principal: Principal): string {
  const status = ctx.daemon.status();
  const byState = Object.entries(countByState(ctx.agents));
  const restarts = ctx.agents.list().reduce((sum, agent) => sum + agent.restarts, 0);
  const loop = performance.eventLoopUtilization();
  return [
    ...family("agents", "gauge", "Agents in each state.", byState, "state"),
    ...family("agent_restarts", "gauge", "Automatic restarts of the agents there are.", [["", restarts]]),
    ...family("problems", "gauge", "What is not as it should be.", [["", status.problems.length]]),
    ...family("start_time_seconds", "gauge", "When the daemon started, since the epoch.", [
      ["", Date.parse(status.started_at) / 1_000],
    ]),
    ...family("resident_memory_bytes", "gauge", "Memory of the daemon itself.", [
      ["", process.memoryUsage.rss()],
    ]),
    ...family("event_loop_active_seconds_total", "counter", "How long the event loop was at work.", [
      ["", loop.active / 1_000],
    ]),
    // An agent's token is for itself and what is below it; these are of all.
    ...(principal.kind === "agent" ? [] : usage(ctx)),
    "",
  ].join("\n");
}

/** What each agent uses, as far as it is measured: a line for each, by `agent_id`. */
function usage(ctx: PluginContext): string[] {
  const measured = ctx.agents
    .list()
    .flatMap(({ agent_id, resources }) => (resources ? [{ agent_id, resources }] : []));
  const each = (name: string, type: string, help: string, value: (resources: Resources) => number) => {
    const values = measured.map(({ agent_id, resources }): [string, number] => [agent_id, value(resources)]);
    return values.length === 0 ? [] : family(name, type, help, values, "agent_id");
  };
  return [
    ...each("agent_cpu_percent", "gauge", "CPU of each agent's tree, of one core.", (it) => it.cpu_percent),
    ...each(
      "agent_cpu_seconds_total",
      "counter",
      "CPU time of each agent's current run.",
      (it) => it.cpu_ms / 1_000,
    ),
    ...each(
      "agent_resident_memory_bytes",
      "gauge",
      "Resident memory of each agent's tree; what its processes share is counted for each.",
      (it) => it.memory_bytes,
    ),
    ...each("agent_processes", "gauge", "Processes of each agent's tree.", (it) => it.processes),
  ];
}

function family(name: string, type: string, help: string, values: [string, number][], label = ""): string[] {
  const full = `openstarry_${name}`;
  return [
    `# HELP ${full} ${help}`,
    `# TYPE ${full} ${type}`,
    ...values.map(([key, value]) => `${full}${key ? `{${label}="${key}"}` : ""} ${value}`),
  ];
}
