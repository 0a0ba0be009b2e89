import { type Agent, isService } from "../contracts/agent.js";
import type { CreateAgent, Intent } from "../contracts/agent-control.js";
import { OpenStarryError } from "../contracts/errors.js";
import { journal } from "../contracts/journal.js";
import type { StoredAgent } from "../contracts/stored-agent.js";
import { rfc3339 } from "../lib/clock.js";
import type { AgentsContext } from "./context.js";
import { requireAdmission } from "./gates.js";
import type { AgentWorker } from "./worker/worker.js";

/**
 * Makes the record of a new agent and its worker. The process may be made while the record is being written, and waits
 * at its gate until it is. Rejects with what is wrong with the agent, nothing changed.
 */
export async function createAgent(
  context: AgentsContext,
  spec: CreateAgent,
  intent: Intent,
  origin: StoredAgent["origin"],
): Promise<Agent> {
  const { drafts, slots, table, clock } = context;
  const stored = await drafts.draft(spec, origin);
  const { agent } = stored;
  const { secrets } = slots.use(journal);
  const hasValues = Object.keys(spec.env ?? {}).length > 0;
  // Also where there are none: values of an earlier agent of its id, whose record was lost, are not its.
  // A service has none of its own.
  if (!isService(agent)) await secrets.set(agent.agent_id, spec.env ?? {});
  let worker: AgentWorker | undefined;
  try {
    // A stop may have begun while it was being drafted.
    if (table.closed) throw new OpenStarryError("daemon_stopping", { detail: "the daemon is stopping" });
    requireAdmission(slots, agent, { kind: "create", actor: intent.actor });
    // Enough to tell later, when the agent is gone, what it was and below whom.
    const data = { template_id: agent.template_id, parent_id: agent.parent_id, ...intent };
    const at = rfc3339(clock.now());
    const written = context.write({
      put: [stored],
      events: [{ type: "agent.created", at, agent_id: agent.agent_id, data }],
      memos: spec.memo ? [spec.memo(agent.agent_id)] : [],
    });
    worker = context.newWorker(stored, written);
    table.add(worker);
    worker.resume();
    await written;
    return worker.stored.agent;
  } catch (error) {
    if (worker) withdraw(worker, context);
    if (hasValues) await secrets.set(agent.agent_id, {});
    throw error;
  }
}

/** For an agent whose record could not be written: its process, if there is one, was not let through its gate. */
function withdraw(worker: AgentWorker, { table }: AgentsContext): void {
  worker.noMoreStarts();
  worker.dispose();
  table.remove(worker);
}
