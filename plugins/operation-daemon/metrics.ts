import { z } from "zod";
import { defineOperation, type Operation, type PluginContext } from "../../core/index.js";
import { countByState } from "./status.js";

/** A few figures in the text format of Prometheus (version 0.0.4). */
export function metricsOperation(ctx: PluginContext): Operation<never> {
  return defineOperation({
    name: "daemon.metrics",
    summary: "Figures about the daemon and its agents in the text format of Prometheus.",
    scope: "any",
    input: z.strictObject({}),
    output: z.string(),
    http: { method: "GET", path: "/metrics", contentType: "text/plain; version=0.0.4; charset=utf-8" },
    handler: async () => exposition(ctx),
  });
}

function exposition(ctx: PluginContext): string {
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
    "",
  ].join("\n");
}

function family(name: string, type: string, help: string, values: [string, number][], label = ""): string[] {
  const full = `openstarry_${name}`;
  return [
    `# HELP ${full} ${help}`,
    `# TYPE ${full} ${type}`,
    ...values.map(([key, value]) => `${full}${key ? `{${label}="${key}"}` : ""} ${value}`),
  ];
}
