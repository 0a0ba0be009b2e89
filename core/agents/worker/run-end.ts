import type { Exit } from "../../contracts/agent.js";
import type { RestartDecision, RestartPolicy } from "../../contracts/restart-policy.js";
import type { RunOutcome } from "../../contracts/spawner.js";
import type { StoredAgent } from "../../contracts/stored-agent.js";
import { rfc3339 } from "../../lib/clock.js";
import { type AgentEvent, describeStatus, eventOf, isSuccess } from "../state.js";

/** How and why a run ended, from what the spawner saw and what was being asked for. */
export function describeExit(stored: StoredAgent, outcome: RunOutcome, nowMs: number): Exit {
  const { agent, ending, template } = stored;
  const cause = outcome.cause ?? ending?.cause ?? "self";
  const how = describeStatus(outcome.status) + (outcome.note === undefined ? "" : `; ${outcome.note}`);
  return {
    ...outcome.status,
    ...(agent.run_id === undefined ? {} : { run_id: agent.run_id }),
    ...(agent.pid === undefined ? {} : { pid: agent.pid }),
    ...(agent.started_at === undefined ? {} : { started_at: agent.started_at }),
    cause,
    actor: ending?.actor ?? `agent:${agent.agent_id}`,
    reason: ending ? `${ending.reason}; it ${how}` : `it ${how}`,
    success: isSuccess(outcome.status, cause, template.template.success_exit_codes),
    ended_at: rfc3339(outcome.endedAtMs ?? nowMs),
    ...(outcome.outputTail ? { output_tail: outcome.outputTail } : {}),
  };
}

/** What follows the end of a run. */
export interface Following {
  event: AgentEvent;
  reason: string;
  /** What the restart policy wants to be reminded of. */
  memory: unknown;
  /** Counts as an automatic restart. */
  counted: boolean;
  delayMs: number;
}

/** Ends after which an agent that is still wanted starts again at once, uncounted. */
const UNCOUNTED: readonly Exit["cause"][] = [
  "restart",
  "stop_request",
  "parent_exit",
  "host_reboot",
  // By a daemon before this one, whose stop was cut short.
  "daemon_stop",
];

/**
 * Decides what follows. Only an end that nobody asked for is put to the restart policy; a start that a
 * policy vetoed is not tried again. While the `daemonStops`, what it ends rests until the next boot.
 */
export function whatFollows(
  stored: StoredAgent,
  exit: Exit,
  policy: () => RestartPolicy,
  { daemonStops, ...time }: { nowMs: number; uptimeMs: number; daemonStops: boolean },
): Following {
  const { agent, template, restart_memory: memory, deleting, ending } = stored;
  const plainly = (event: AgentEvent): Following => ({
    event,
    reason: exit.reason,
    memory,
    counted: false,
    delayMs: 0,
  });
  const rests = deleting || agent.desired === "stopped" || (daemonStops && exit.cause === "daemon_stop");
  if (rests) return plainly("rest");
  if (exit.kind === "spawn_failed" && exit.cause === "policy") return plainly("give_up");
  if (UNCOUNTED.includes(exit.cause) || ending?.uncounted) return plainly("again");
  const rules = template.template.restart;
  let decision: RestartDecision;
  try {
    decision = policy().decide({ exit, rules, memory, ...time });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    decision = { action: "fail", reason: `the restart policy failed: ${why}`, memory };
  }
  const restarts = decision.action === "restart";
  // Nobody waits longer than the longest backoff, whatever a policy answers.
  const delayMs =
    decision.action === "restart" ? Math.min(Math.max(0, decision.delayMs || 0), rules.backoff.maxMs) : 0;
  return {
    event: eventOf(decision),
    reason: `${exit.reason}; ${decision.reason}`,
    memory: decision.memory,
    counted: restarts,
    delayMs,
  };
}
