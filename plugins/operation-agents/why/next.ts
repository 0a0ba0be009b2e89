import { formatDuration, rfc3339 } from "../../../core/index.js";
import type { WhyFacts } from "./facts.js";
import { actorInWords } from "./in-words.js";
import { upcomingAction } from "./upcoming-action.js";

/** Says what will happen by itself, and when. Pure. */
export function nextFor(facts: WhyFacts): string {
  const { agent, nowMs } = facts;
  switch (agent.state) {
    case "pending":
      return nextOfPending(facts);
    case "starting":
      return `will be running once it is ready${readinessLimit(facts)}`;
    case "running":
      return nextOfRunning(facts);
    case "stopping":
      return nextOfStopping(facts);
    case "backoff":
      return agent.next_start_at === undefined
        ? "will be started again"
        : `will be started again at ${formatDeadline(agent.next_start_at, nowMs)}`;
    case "stopped":
      if (agent.desired === "running") return "will be started when the daemon starts again";
      return nothing(facts);
    case "exited":
    case "failed":
      return nothing(facts);
  }
}

function nextOfPending({ agent, held, needs, nowMs }: WhyFacts): string {
  if (held) return `will start when ${actorInWords(held.by)} releases it`;
  if (needs.length > 0) {
    const conditions = needs.map(({ name, agentId }) =>
      agentId === undefined ? `${name} is available` : `agent ${agentId} is running`,
    );
    const never = needs.some(({ permanent }) => permanent) ? "; this will not happen by itself" : "";
    return `will start when ${conditions.join(" and ")}${never}`;
  }
  if (agent.next_start_at !== undefined) {
    return `will try to start again at ${formatDeadline(agent.next_start_at, nowMs)}`;
  }
  return agent.reason === undefined ? "will start now" : "will start when what it waits for is available";
}

function nextOfRunning(facts: WhyFacts): string {
  const { agent, nowMs } = facts;
  if (agent.desired === "stopped") return "will be stopped now";
  const upcoming = upcomingAction(facts);
  if (upcoming) return `${upcoming.action} at ${formatDeadline(upcoming.at, nowMs)} ${upcoming.condition}`;
  const limit = agent.limits?.run_time_max;
  if (!limit || agent.started_at === undefined) return `keeps running; on exit, ${onExit(facts)}`;
  const end = rfc3339(Date.parse(agent.started_at) + limit.value * 1_000);
  return `may run until ${formatDeadline(end, nowMs)}, its run_time_max; on exit, ${onExit(facts)}`;
}

function onExit({ template }: WhyFacts): string {
  const { policy, max_restarts: max, periodMs = 0 } = template?.restart ?? {};
  if (policy === "never") return "it will not be restarted";
  if (policy === undefined) return "its restart policy applies";
  const restarts = max === 1 ? "restart" : "restarts";
  return `its restart policy applies (${policy}, at most ${max} ${restarts} within ${formatDuration(periodMs)})`;
}

function nextOfStopping(facts: WhyFacts): string {
  const isRetrying = facts.survivors.length > 0;
  const when = `once all its processes have exited, ${afterStop(facts)}`;
  return isRetrying ? `the daemon keeps retrying; ${when}` : `${when}${stopLimit(facts)}`;
}

function afterStop({ agent, ending, deleting }: WhyFacts): string {
  if (deleting) return "its record will be deleted";
  if (agent.desired === "stopped") return "it will be stopped";
  if (ending?.cause === "daemon_stop") return "it will stay stopped until the daemon starts again";
  if (ending && ["policy", "unhealthy", "start_timeout"].includes(ending.cause)) {
    return "its restart policy applies";
  }
  return "it will be started again";
}

function readinessLimit({ agent, template, nowMs }: WhyFacts): string {
  const timeoutMs = template?.readiness?.timeoutMs;
  if (timeoutMs === undefined || agent.started_at === undefined) return "";
  const leftMs = Date.parse(agent.started_at) + timeoutMs - nowMs;
  const left = leftMs > 0 ? `${formatDuration(leftMs)} left` : "extended";
  return `; will be ended if it is not ready within ${formatDuration(timeoutMs)} (${left})`;
}

function stopLimit({ template, events, agent }: WhyFacts): string {
  if (!template) return "";
  const { signal, graceMs } = template.stop;
  const began = events.findLast(
    ({ type, data, run_id }) =>
      type === "agent.state" && data["to"] === "stopping" && run_id === agent.run_id,
  );
  const when = began
    ? `at ${rfc3339(Date.parse(began.at) + graceMs)} at the latest`
    : "after its grace period";
  return `; it was sent ${signal} and will be killed ${when} (grace period ${formatDuration(graceMs)})`;
}

function nothing({ agent, template, host }: WhyFacts): string {
  const first = host === undefined ? "nothing until it is started" : `nothing until ${host} requests it`;
  if (template?.removeAfterMs === undefined) return first;
  const ended = Date.parse(agent.last_exit?.ended_at ?? agent.created_at);
  return `${first}; its record will be deleted at ${rfc3339(ended + template.removeAfterMs)}`;
}

/** Formats a time with how long it is until then. */
function formatDeadline(time: string, nowMs: number): string {
  const left = Date.parse(time) - nowMs;
  return `${time} (${left > 0 ? `in ${formatDuration(left)}` : "now"})`;
}
