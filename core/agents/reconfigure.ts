import type { AgentControl } from "../contracts/agent-control.js";
import type { Config, ConfigAgent } from "../contracts/config.js";
import { checkConfigAgents } from "./config-agents.js";
import type { AgentsContext } from "./context.js";

/** Adds and stops the agents that a changed config names, or names no more. Answers what was done, in words. */
export async function reconfigure(
  context: AgentsContext,
  { stop }: Pick<AgentControl, "stop">,
  before: Config,
  after: Config,
): Promise<string[]> {
  const { table, templates, drafts, configFile } = context;
  await templates.reload();
  const applied: string[] = [];
  const intent = { actor: "operator", reason: "the config was reloaded" };
  const isKnown = (id: string) => table.workers.has(id) || table.isQuarantined(id);
  const check = (wanted: ConfigAgent) => drafts.draft(wanted, "config");
  await checkConfigAgents({ agents: after.agents, file: configFile, isKnown, check });
  for (const wanted of after.agents) {
    if (isKnown(wanted.agent_id)) continue;
    await table.reserve(wanted.agent_id, () => context.create(wanted, intent, "config"));
    applied.push(`agent ${wanted.agent_id} was added`);
  }
  for (const { agent_id } of before.agents) {
    if (after.agents.some((agent) => agent.agent_id === agent_id) || !table.workers.has(agent_id)) continue;
    await stop(agent_id, { ...intent, reason: "it is no longer in the config" });
    applied.push(`agent ${agent_id} is stopped: it is no longer in the config`);
  }
  return applied;
}
