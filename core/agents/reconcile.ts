import { isService } from "../contracts/agent.js";
import type { Config, ConfigAgent } from "../contracts/config.js";
import { toOpenStarryError } from "../contracts/errors.js";
import { journal } from "../contracts/journal.js";
import { parseParams } from "../template/params.js";
import { checkConfigAgents } from "./config-agents.js";
import type { AgentsContext } from "./context.js";
import { isLive } from "./state.js";
import type { AgentTable } from "./table.js";
import type { AgentWorker } from "./worker/worker.js";

/**
 * Brings what is towards what is desired: the master first among the agents, then the others of the config, then the
 * rest. All plugins are started. `fresh`: agents that the config does not name are stopped.
 */
export async function reconcile(context: AgentsContext, { fresh }: { fresh: boolean }): Promise<void> {
  const { table, drafts } = context;
  const config = context.config();
  const named = new Set(config.agents.map(({ agent_id }) => agent_id));
  await checkConfigAgents({
    agents: config.agents,
    file: context.configFile,
    isKnown: (id) => table.workers.has(id) || table.isQuarantined(id),
    check: (wanted) => drafts.draft(wanted, "config"),
  });
  for (const wanted of config.agents) await bringBack(context, wanted);
  for (const worker of inOrder(config, table)) {
    const { agent } = worker.stored;
    if (fresh && !named.has(agent.agent_id) && !isService(agent)) {
      const reason = "the daemon was started with --fresh";
      await worker.setDesired(
        isLive(agent.state) ? { ending: { cause: "stop_request", actor: "operator", reason } } : {},
        { agent: { desired: "stopped", reason } },
      );
    } else if (agent.state === "stopped" && agent.desired === "running") {
      await worker.setDesired({}, { agent: { reason: undefined }, event: "start" });
    }
    worker.resume();
  }
}

/** The master first, then the config's other agents, then the rest by age. */
function inOrder(config: Config, table: AgentTable): AgentWorker[] {
  const first = config.agents.flatMap(({ agent_id }) => table.workers.get(agent_id) ?? []);
  return [...first, ...[...table.workers.values()].filter((worker) => !first.includes(worker))];
}

/**
 * A config agent without a record gets one; one with a record keeps it, with today's parameters. One
 * whose record cannot be read may be alive: it is not made a second time.
 */
async function bringBack(context: AgentsContext, wanted: ConfigAgent): Promise<void> {
  const { table, slots, templates, problem } = context;
  if (table.isQuarantined(wanted.agent_id)) return;
  const worker = table.workers.get(wanted.agent_id);
  const intent = { actor: "config", reason: "named in the config" };
  if (!worker) {
    await context.create(wanted, intent, "config");
    return;
  }
  const { stored } = worker;
  if (isLive(stored.agent.state)) return;
  try {
    const template = await templates.find(wanted.template_id);
    const params = parseParams(template, wanted.params);
    await slots.use(journal).secrets.set(wanted.agent_id, wanted.env);
    const agent = { template_id: wanted.template_id, template_revision: template.revision };
    await worker.setDesired({ template, params, origin: "config" }, { agent });
  } catch (error) {
    // It has run before: what it was pinned to is better than nothing.
    problem(`agent:${wanted.agent_id}`, `${toOpenStarryError(error).message}; the former template is used`);
  }
}
