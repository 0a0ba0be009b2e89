import type { Agent } from "../core/contracts/agent.js";
import type { Client } from "../plugins/agent-manager-tool/client/client.js";

/** Lists every agent in order of creation, page by page; `services` includes plugin services. */
export async function allAgents(client: Client, services = false): Promise<Agent[]> {
  const agents: Agent[] = [];
  let cursor: string | undefined;
  do {
    const page = await client.agents.list({
      limit: 1_000,
      all: services,
      cursor,
    });
    agents.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor !== undefined);
  return agents;
}
