import type { Agent, AgentState, Exit } from "../../../core/index.js";

const ENDED: readonly AgentState[] = ["stopped", "exited", "failed"];

export function isEnded(state: AgentState): boolean {
  return ENDED.includes(state);
}

/** An agent in as few words as it takes to decide what to do about it. */
export function summary(agent: Agent): Record<string, unknown> {
  return {
    agent_id: agent.agent_id,
    template_id: agent.template_id,
    state: agent.state,
    ...given("reason", agent.reason),
    ...(agent.health === "unknown" ? {} : { health: agent.health }),
    ...given("pid", agent.pid),
    ...given("parent_id", agent.parent_id),
    ...given("status", agent.status),
    ...given("progress", agent.progress),
    ...(agent.restarts > 0 ? { restarts: agent.restarts } : {}),
    ...given("next_start_at", agent.next_start_at),
    ...(Object.keys(agent.labels).length > 0 ? { labels: agent.labels } : {}),
    ...(agent.last_exit ? { last_exit: exitSummary(agent.last_exit) } : {}),
  };
}

function exitSummary(exit: Exit): Record<string, unknown> {
  const how =
    exit.kind === "exited"
      ? { code: exit.code }
      : exit.kind === "signaled"
        ? { signal: exit.signal }
        : exit.kind === "spawn_failed"
          ? { error: exit.error.detail }
          : {};
  return { kind: exit.kind, ...how, success: exit.success, reason: exit.reason, ended_at: exit.ended_at };
}

function given(name: string, value: unknown): Record<string, unknown> {
  return value === undefined ? {} : { [name]: value };
}
