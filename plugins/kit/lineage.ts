import type { AgentLookup } from "../../core/index.js";

/** Lists the ids of an agent, its parent and all further ancestors that have a record. */
export function lineage(agentId: string, agents: Pick<AgentLookup, "get">): string[] {
  const line: string[] = [];
  let next = agents.get(agentId);
  // A cycle in the records must not hang the daemon.
  while (next && !line.includes(next.agent_id)) {
    line.push(next.agent_id);
    next = next.parent_id === undefined ? undefined : agents.get(next.parent_id);
  }
  return line;
}
