import type { AgentLookup } from "../contracts/agent-lookup.js";
import type { AgentsContext } from "./context.js";
import { requireAdmission } from "./gates.js";
import { isLive } from "./state.js";

/** `ctx.agents`: looks at agents, and changes nothing. */
export function createAgentLookup({ table, drafts, waiters, config, slots }: AgentsContext): AgentLookup {
  const agentOf = (agentId: string) => table.workers.get(agentId)?.stored.agent;
  return {
    get: agentOf,
    list: () => [...table.workers.values()].map(({ stored }) => stored.agent),
    configured: () => config().agents.map(({ agent_id }) => agent_id),
    byRun(runId) {
      for (const { stored } of table.workers.values()) {
        const { run_id, pid, state } = stored.agent;
        if (run_id === runId && pid !== undefined && isLive(state)) return stored.agent;
      }
      return undefined;
    },
    details(agentId) {
      const worker = table.workers.get(agentId);
      return worker && { stored: worker.stored, survivors: worker.survivors };
    },
    template: (agentId) => table.workers.get(agentId)?.stored.template,
    async check(spec, { actor }) {
      if (spec.agent_id !== undefined) table.refuseTaken(spec.agent_id);
      const { agent } = await drafts.draft(spec, "request");
      requireAdmission(slots, agent, { kind: "create", actor });
      return agent;
    },
    quarantined: (agentId) => table.quarantined.get(agentId),
    wait: async (agentId, condition, options) => waiters.wait(table.need(agentId), condition, options),
  };
}
