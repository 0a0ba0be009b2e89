import { isService } from "../contracts/agent.js";
import type { StoredAgent } from "../contracts/stored-agent.js";

/**
 * The order in which agents are ended together: an agent comes after all that need it (its children,
 * and those whose template requires it), services after all agents. Each wave ends before the next
 * begins; agents in a cycle share a wave.
 */
export function stopWaves(all: readonly StoredAgent[]): string[][] {
  const services = all.filter(({ agent }) => isService(agent));
  const agents = all.filter(({ agent }) => !isService(agent));
  const last = services.map(({ agent }) => agent.agent_id);
  return [...wavesOf(agents), ...(last.length > 0 ? [last] : [])];
}

function wavesOf(agents: readonly StoredAgent[]): string[][] {
  const ids = new Set(agents.map(({ agent }) => agent.agent_id));
  const needs = new Map(
    agents.map((stored) => [stored.agent.agent_id, needsOf(stored).filter((id) => ids.has(id))]),
  );
  const waves: string[][] = [];
  while (needs.size > 0) {
    const needed = new Set([...needs.values()].flat());
    let wave = [...needs.keys()].filter((id) => !needed.has(id));
    if (wave.length === 0) wave = [...needs.keys()];
    for (const id of wave) needs.delete(id);
    waves.push(wave);
  }
  return waves;
}

function needsOf({ agent, template }: StoredAgent): string[] {
  const required = template.template.requires
    .filter((need) => need.startsWith("agent:"))
    .map((need) => need.slice("agent:".length));
  return agent.parent_id === undefined ? required : [...required, agent.parent_id];
}
