import { toOpenStarryError } from "../contracts/errors.js";
import type { EventData } from "../contracts/events.js";
import { journal } from "../contracts/journal.js";
import { type AdoptSpec, type OrphanedProcess, spawner } from "../contracts/spawner.js";
import type { StoredAgent } from "../contracts/stored-agent.js";
import type { AgentsContext } from "./context.js";
import { isLive } from "./state.js";

export interface RecoveryContext extends AgentsContext {
  emit: (type: "record.quarantined", data: EventData["record.quarantined"]) => Promise<void>;
}

/** Reads the journal and takes over what lives. The journal and the spawners are started. */
export async function recover(context: RecoveryContext): Promise<void> {
  const { slots, log, table } = context;
  const { agents, quarantined } = await slots.use(journal).load();
  for (const { key, error } of quarantined)
    await quarantine(context, key, `record ${key} could not be read: ${error}`);
  const adopted = await Promise.all(agents.map((stored) => adopt(context, stored)));
  const live = new Set(adopted.filter((runId) => runId !== undefined));
  for (const it of slots.use(spawner).values()) {
    try {
      const known = [...table.workers].map(([id, { stored }]) => [id, stored.agent.run_id] as const);
      const orphans = (await it.reapOrphans?.(live, new Map(known))) ?? [];
      for (const orphan of orphans) await reportOrphan(context, orphan, live);
    } catch (error) {
      log.error({ err: error }, "leftovers could not be cleared away");
    }
  }
}

/** Keeps the id of an agent whose processes live and whose record is of an earlier time. */
async function reportOrphan(
  context: RecoveryContext,
  { agentId, pids }: OrphanedProcess,
  live: ReadonlySet<string>,
): Promise<void> {
  const { table, problem: tell } = context;
  if (table.isQuarantined(agentId)) return;
  const pid = pids.join(", ");
  const worker = table.workers.get(agentId);
  if (worker && live.has(worker.stored.agent.run_id ?? "")) {
    // The run of its record is taken over already, and there is no second start to fear.
    const problem = `another run of agent ${agentId} goes on (pid ${pid}), and the journal does not know of it; it is left alone`;
    tell(`agent:${agentId}`, problem);
    return;
  }
  // Its record is of an earlier time: by that it would be started a second time.
  worker?.dispose();
  if (worker) table.remove(worker);
  await quarantine(
    context,
    agentId,
    `agent ${agentId} runs (pid ${pid}), and the journal does not know of it`,
  );
}

/** The state of the agent is unknown, and its processes may live: its id stays reserved. */
async function quarantine(context: RecoveryContext, agentId: string, problem: string): Promise<void> {
  context.table.quarantine(agentId, problem);
  context.problem(
    `agent:${agentId}`,
    `${problem}; it is left alone (agent rm ${agentId} ends and forgets it)`,
  );
  // A journal that cannot be written is no reason to leave the others alone.
  await context.emit("record.quarantined", { key: agentId, error: problem }).catch(() => {});
}

/** Makes the worker of a record, and takes its live run over. Answers the run that lives on. */
async function adopt(context: RecoveryContext, stored: StoredAgent): Promise<string | undefined> {
  const { table } = context;
  // What it used when an earlier daemon looked last says nothing of now.
  const agent = { ...stored.agent, resources: undefined };
  const worker = context.newWorker({ ...stored, agent });
  table.add(worker);
  if (!isLive(agent.state)) return undefined;
  const { stop, logs } = stored.template.template;
  const spec = { agentId: agent.agent_id, runId: agent.run_id ?? "", target: stored.target, stop, logs };
  const found = await takeOver(context, agent.spawner, spec);
  if ("problem" in found) {
    table.remove(worker);
    await quarantine(context, agent.agent_id, found.problem);
    return agent.run_id;
  }
  if (found.handle) worker.adopt(found.handle);
  else worker.recordExit(found.outcome);
  return found.handle ? agent.run_id : undefined;
}

/** A problem when its spawner is not there, or could not say. */
async function takeOver({ drafts, log }: RecoveryContext, name: string, spec: AdoptSpec) {
  try {
    return await drafts.spawner(name).adopt(spec);
  } catch (error) {
    log.error({ agent_id: spec.agentId, err: error }, "an agent could not be taken over");
    return {
      problem: `agent ${spec.agentId} could not be taken over: ${toOpenStarryError(error).message}`,
    };
  }
}
