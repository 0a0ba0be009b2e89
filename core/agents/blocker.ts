import type { StoredAgent } from "../contracts/stored-agent.js";
import type { AgentsContext } from "./context.js";
import { blockerOfGates } from "./gates.js";

/** Why an agent may not start yet, in words: what it requires is not ready. `undefined`: it may. */
export function blockerOf(
  stored: StoredAgent,
  { table, endpoints, slots }: AgentsContext,
): string | undefined {
  for (const need of stored.template.template.requires) {
    const problem = need.startsWith("agent:")
      ? agentProblem(need.slice("agent:".length), table)
      : endpointProblem(need, endpoints());
    if (problem !== undefined) return `waits for ${need}${problem}`;
  }
  return blockerOfGates(slots, stored);
}

function agentProblem(id: string, { workers }: AgentsContext["table"]): string | undefined {
  const other = workers.get(id)?.stored.agent;
  if (!other) return ", which does not exist";
  return other.state === "running" ? undefined : `, which is ${other.state}`;
}

function endpointProblem(
  need: string,
  endpoints: ReturnType<AgentsContext["endpoints"]>,
): string | undefined {
  const endpoint = endpoints.find(({ name }) => name === need);
  const problem = endpoint ? endpoint.health() : "no plugin provides it";
  return problem === undefined ? undefined : `: ${problem}`;
}
