import { type Agent, type AgentLookup, isOpenStarryError, type PluginContext } from "../../core/index.js";

type Condition = Parameters<AgentLookup["wait"]>[1];

/**
 * Waits for a condition, and answers the agent as it is when the time is over: whoever polls goes on
 * with the next request. Rejects when there is no such agent, and when the signal ends the wait early.
 */
export async function waitAtMost(
  ctx: Pick<PluginContext, "agents">,
  agentId: string,
  condition: Condition,
  options: { timeoutMs: number; signal?: AbortSignal },
): Promise<Agent> {
  try {
    return await ctx.agents.wait(agentId, condition, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    const agent = ctx.agents.get(agentId);
    if (agent && isOpenStarryError(error) && error.code === "timeout") return agent;
    throw error;
  }
}
