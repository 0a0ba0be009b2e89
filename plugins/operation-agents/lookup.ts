import {
  type Agent,
  type AgentLookup,
  isService,
  nearest,
  OpenStarryError,
  type Principal,
} from "../../core/index.js";

type Lookup = Pick<AgentLookup, "get" | "list" | "quarantined">;

/** Whether the principal may see this agent: an agent sees itself and what is below it. */
export function isVisible(agent: Agent, principal: Principal, agents: Pick<Lookup, "get">): boolean {
  if (principal.kind !== "agent") return principal.kind !== "anonymous";
  const seen = new Set<string>();
  // A circle of parents must not hang the daemon.
  for (let it: Agent | undefined = agent; it && !seen.has(it.agent_id); ) {
    if (it.agent_id === principal.agentId) return true;
    seen.add(it.agent_id);
    it = it.parent_id === undefined ? undefined : agents.get(it.parent_id);
  }
  return false;
}

export function visibleAgents(agents: Lookup, principal: Principal): Agent[] {
  return agents.list().filter((agent) => isVisible(agent, principal, agents));
}

/** As `requireAgent`, for what changes it. Throws `managed_by_plugin` for a service. */
export function requireOwnAgent(agents: Lookup, agentId: string, principal: Principal): Agent {
  const agent = requireAgent(agents, agentId, principal);
  if (!isService(agent)) return agent;
  throw new OpenStarryError("managed_by_plugin", {
    detail: `${agentId} is a service: the plugin that hosts it starts, stops and restarts it`,
    hint: "change that plugin's options in the config, or leave the plugin out",
  });
}

/** Throws `agent_not_found`, with the nearest id among those that the principal may know of. */
export function requireAgent(agents: Lookup, agentId: string, principal: Principal): Agent {
  const agent = agents.get(agentId);
  if (agent) return agent;
  const quarantined = principal.kind === "operator" ? agents.quarantined(agentId) : undefined;
  if (quarantined !== undefined) {
    throw new OpenStarryError("agent_not_found", {
      detail: `"${agentId}" is in quarantine: ${quarantined}`,
      hint: `DELETE /agents/${agentId} ends what lives of it and forgets it`,
    });
  }
  const known = visibleAgents(agents, principal).map(({ agent_id }) => agent_id);
  const guess = nearest(agentId, known);
  throw new OpenStarryError("agent_not_found", {
    detail: `there is no agent "${agentId}"`,
    hint: guess ? `did you mean "${guess}"?` : "GET /agents lists the agents that there are",
  });
}
