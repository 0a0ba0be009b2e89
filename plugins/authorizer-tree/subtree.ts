import type { Agent, AgentLookup } from "../../core/index.js";
import { lineage } from "../kit/lineage.js";

type Lookup = Pick<AgentLookup, "get" | "list">;

/** Whether `agentId` exists and was started by `ancestorId` or by something below it. */
export function isBelow(ancestorId: string, agentId: string, agents: Pick<Lookup, "get">): boolean {
  return lineage(agentId, agents).slice(1).includes(ancestorId);
}

export function childrenOf(agentId: string, agents: Pick<Lookup, "list">): Agent[] {
  return agents.list().filter((agent) => agent.parent_id === agentId);
}
