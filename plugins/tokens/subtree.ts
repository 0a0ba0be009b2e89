import type { Agent, AgentCommands } from "../../core/index.js";

type Lookup = Pick<AgentCommands, "get" | "list">;

/** The agent itself, its parent, and so on up, as far as there are records. */
export function lineage(agentId: string, agents: Pick<Lookup, "get">): string[] {
  const line: string[] = [];
  let next = agents.get(agentId);
  // A circle in the records must not hang the daemon.
  while (next && !line.includes(next.agent_id)) {
    line.push(next.agent_id);
    next = next.parent_id === undefined ? undefined : agents.get(next.parent_id);
  }
  return line;
}

/** Whether `agentId` exists and was started by `ancestorId` or by something below it. */
export function isBelow(ancestorId: string, agentId: string, agents: Pick<Lookup, "get">): boolean {
  return lineage(agentId, agents).slice(1).includes(ancestorId);
}

export function childrenOf(agentId: string, agents: Pick<Lookup, "list">): Agent[] {
  return agents.list().filter((agent) => agent.parent_id === agentId);
}
