import type { Exit } from "../../../core/index.js";
import type { WhyFacts } from "./facts.js";
import { underWay } from "./under-way.js";

/** What to do, if anything: for a person, and for an agent that can act on a sentence. Pure. */
export function hintFor(facts: WhyFacts): string {
  const { agent, host } = facts;
  const id = agent.agent_id;
  if (host !== undefined) return hintForService(facts, host);
  switch (agent.state) {
    case "pending":
      return hintForPending(facts);
    case "starting":
      return `wait until it is ready (GET /agents/${id}?wait_for=ready), and look at what it prints: GET /agents/${id}/logs`;
    case "running":
      return hintForRunning(facts);
    case "stopping":
      return hintForStopping(facts);
    case "backoff":
      return `${causeHint(facts)}; POST /agents/${id}/start does not wait`;
    case "stopped":
      if (agent.last_exit?.cause === "policy" || agent.last_exit?.cause === "oom")
        return `${causeHint(facts)}, then POST /agents/${id}/start; or DELETE /agents/${id}`;
      return `start it with POST /agents/${id}/start, or forget it with DELETE /agents/${id}`;
    case "exited":
      return agent.last_exit?.success && facts.runs[0]?.result !== undefined
        ? `its result: GET /agents/${id}/result; then DELETE /agents/${id}`
        : agent.last_exit?.success === false
          ? `${causeHint(facts)}, then POST /agents/${id}/start`
          : `its output: GET /agents/${id}/logs; start it again with POST /agents/${id}/start`;
    case "failed":
      return `${causeHint(facts)}, then POST /agents/${id}/start; or DELETE /agents/${id}`;
  }
}

function hintForRunning(facts: WhyFacts): string {
  const { agent_id: id, health, reason } = facts.agent;
  const coming = underWay(facts);
  if (coming) return coming.hint;
  return health === "unhealthy" || reason !== undefined
    ? `look at what it prints: GET /agents/${id}/logs; or restart it: POST /agents/${id}/restart`
    : "nothing has to be done";
}

function hintForPending({ agent: { agent_id: id }, held, needs }: WhyFacts): string {
  if (held)
    return `wait, or ask whoever holds it (${held.by}); DELETE /agents/${id} if it is no longer wanted`;
  const need = needs.find(({ hopeless }) => hopeless);
  if (!need) return `wait, or see to what it waits for; DELETE /agents/${id} if it is no longer wanted`;
  if (need.agentId === undefined)
    return `name a plugin that provides ${need.name} in the config; GET /plugins lists those that there are`;
  return need.problem === "does not exist"
    ? `create agent ${need.agentId} with POST /agents; or DELETE /agents/${id}`
    : `GET /agents/${need.agentId}/why tells what became of it; POST /agents/${need.agentId}/start starts it again`;
}

function hintForStopping({ agent: { agent_id: id }, survivors }: WhyFacts): string {
  const pids = survivors.map(({ pid }) => pid).join(", ");
  return survivors.length > 0
    ? `look at what these hang in (pid ${pids}): a disk or a network mount that does not answer, or another user`
    : `wait; DELETE /agents/${id}?force=true ends it without further grace`;
}

function hintForService({ agent: { agent_id: id, state, health } }: WhyFacts, host: string): string {
  if (state === "running" && health !== "unhealthy") return "nothing has to be done";
  return `${host} sees to it, and nobody else may: GET /plugins shows what is wrong with it, GET /agents/${id}/logs what the service prints`;
}

/** What to look at first, by how the last run ended. */
function causeHint({ agent: { agent_id: id, last_exit: exit } }: WhyFacts): string {
  const output = `its output (GET /agents/${id}/logs)`;
  if (exit?.kind === "spawn_failed") return "put right what kept it from starting";
  if (exit?.kind === "lost") return `read ${output}, the daemon's log and the machine's at ${exit.ended_at}`;
  const hints: Partial<Record<Exit["cause"], string>> = {
    oom: "mend what takes the memory, or raise memory_max",
    policy: "see to what it was ended for, or change the rule",
    start_timeout: `read ${output}; see to what its readiness probe saw, or give it a longer timeout`,
    unhealthy: `read ${output}: what it did last before it was found unhealthy`,
  };
  const special = exit && hints[exit.cause];
  if (special) return special;
  if (exit?.kind === "signaled" && exit.signal === "SIGKILL")
    return `find out who sent SIGKILL: a person, or the kernel for want of memory of the whole machine (its log says so); read ${output}`;
  return `read ${output} and put right what makes it fail`;
}
