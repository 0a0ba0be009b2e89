import { type AgentLookup, isService } from "../../core/index.js";
import { PINNED } from "./victim.js";

/** The priority of an agent, by its template. Of services, of the master and of all that it requires: pinned. */
export function createRanks(
  agents: Pick<AgentLookup, "configured" | "template">,
): (agentId: string) => number {
  /** The master, the agents that it waits for, those that they wait for, and so on. */
  function withMaster(): Set<string> {
    const found = new Set([agents.configured()[0] ?? ""]);
    for (const id of found) {
      for (const need of agents.template(id)?.template.requires ?? []) {
        if (need.startsWith("agent:")) found.add(need.slice("agent:".length));
      }
    }
    return found;
  }

  return (agentId) =>
    isService({ agent_id: agentId }) || withMaster().has(agentId)
      ? PINNED
      : // Records of an earlier version have none.
        (agents.template(agentId)?.template.priority ?? 0);
}
