import type { Exit } from "../../../core/index.js";
import type { WhyFacts } from "./facts.js";
import { actorInWords } from "./in-words.js";
import { upcomingAction } from "./upcoming-action.js";

/** Says what to do, if anything, to a person or to an agent that can act on a sentence. Pure. */
export function hintFor(facts: WhyFacts): string {
  const { agent, host } = facts;
  const id = agent.agent_id;
  if (host !== undefined) return hintForService(facts, host);
  switch (agent.state) {
    case "pending":
      return hintForPending(facts);
    case "starting":
      return `wait until it is ready (GET /agents/${id}?wait_for=ready), or check its logs: GET /agents/${id}/logs`;
    case "running":
      return hintForRunning(facts);
    case "stopping":
      return hintForStopping(facts);
    case "backoff":
      return `${causeHint(facts)}; to start it now: POST /agents/${id}/start`;
    case "stopped":
      if (agent.last_exit?.cause === "policy" || agent.last_exit?.cause === "oom")
        return `${causeHint(facts)}, then POST /agents/${id}/start; or delete it: DELETE /agents/${id}`;
      return `start it with POST /agents/${id}/start, or delete it with DELETE /agents/${id}`;
    case "exited":
      return agent.last_exit?.success && facts.runs[0]?.result !== undefined
        ? `read its result: GET /agents/${id}/result; then delete it: DELETE /agents/${id}`
        : agent.last_exit?.success === false
          ? `${causeHint(facts)}, then POST /agents/${id}/start`
          : `check its logs: GET /agents/${id}/logs; start it again with POST /agents/${id}/start`;
    case "failed":
      return `${causeHint(facts)}, then POST /agents/${id}/start; or delete it: DELETE /agents/${id}`;
  }
}

function hintForRunning(facts: WhyFacts): string {
  const { agent_id: id, health, reason } = facts.agent;
  const upcoming = upcomingAction(facts);
  if (upcoming) return upcoming.hint;
  return health === "unhealthy" || reason !== undefined
    ? `check its logs: GET /agents/${id}/logs; or restart it: POST /agents/${id}/restart`
    : "nothing";
}

function hintForPending({ agent: { agent_id: id }, held, needs }: WhyFacts): string {
  if (held) return `wait until ${actorInWords(held.by)} releases it, or delete it: DELETE /agents/${id}`;
  const need = needs.find(({ permanent }) => permanent);
  if (!need) return `wait, or provide what it waits for; or delete it: DELETE /agents/${id}`;
  if (need.agentId === undefined)
    return `add a plugin that provides ${need.name} to the config; GET /plugins lists the current ones`;
  return need.problem === "does not exist"
    ? `create agent ${need.agentId} with POST /agents; or delete this one: DELETE /agents/${id}`
    : `find out why: GET /agents/${need.agentId}/why; start it again: POST /agents/${need.agentId}/start`;
}

function hintForStopping({ agent: { agent_id: id }, survivors }: WhyFacts): string {
  const pids = survivors.map(({ pid }) => pid).join(", ");
  return survivors.length > 0
    ? `find out what blocks pid ${pids}: a disk or network mount that does not respond, or another owner`
    : `wait, or kill and delete it: DELETE /agents/${id}?force=true`;
}

function hintForService({ agent: { agent_id: id, state, health } }: WhyFacts, host: string): string {
  if (state === "running" && health !== "unhealthy") return "nothing";
  return `${host} manages it: GET /plugins shows its problems, GET /agents/${id}/logs the output of the service`;
}

/** Says what to check first, by how the last run ended. */
function causeHint({ agent: { agent_id: id, last_exit: exit } }: WhyFacts): string {
  const logs = `check its logs (GET /agents/${id}/logs)`;
  if (exit?.kind === "spawn_failed") return "fix the cause of the failed start";
  if (exit?.kind === "lost") return `${logs}, the daemon's log and the system log around ${exit.ended_at}`;
  const hints: Partial<Record<Exit["cause"], string>> = {
    oom: "reduce its memory usage, or raise memory_max",
    policy: "fix what it was ended for, or change the rule",
    start_timeout: `${logs} and what its readiness probe reported, or raise the timeout`,
    unhealthy: `${logs} for what it did before it became unhealthy`,
  };
  const special = exit && hints[exit.cause];
  if (special) return special;
  if (exit?.kind === "signaled" && exit.signal === "SIGKILL")
    return `find out what sent SIGKILL: a person, or the kernel because the machine ran out of memory (see the system log); ${logs}`;
  return `${logs} and fix the failure`;
}
