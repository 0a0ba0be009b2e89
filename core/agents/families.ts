import type { Agent } from "../contracts/agent.js";
import { OpenStarryError } from "../contracts/errors.js";
import type { Logger } from "../contracts/plugin.js";
import { isEnded } from "./state.js";
import type { AgentTable } from "./table.js";
import type { AgentWorker } from "./worker/worker.js";

/** Who started whom, and what follows from that. */
export interface Families {
  /** An agent is over: its children are ended or handed up. */
  over(parent: AgentWorker): void;
  /** A record is gone: those below it are handed up, so that a later agent of its id does not come by them. */
  gone(parent: Agent): void;
  /** After a boot: what a daemon that died has left undone of both. */
  catchUp(): void;
  /** Rejects with `quota_exceeded`: asked where nothing comes between the answer and the record. */
  refuseTooMany(child: Agent): void;
}

interface FamilyContext {
  table: AgentTable;
  log: Logger;
}

export function createFamilies(table: AgentTable, log: Logger): Families {
  const context = { table, log };
  return {
    over(parent) {
      if (!isOver(parent)) return;
      for (const child of childrenOf(table, parent.stored.agent.agent_id))
        stopOrReparent(context, child, parent);
    },
    gone({ agent_id, parent_id }) {
      for (const child of childrenOf(table, agent_id))
        reparent(context, child, parent_id, new Set([agent_id]));
    },
    catchUp() {
      for (const child of table.workers.values()) catchUpWith(context, child);
    },
    refuseTooMany: (child) => refuseTooMany(table, child),
  };
}

function childrenOf(table: AgentTable, agentId: string): AgentWorker[] {
  return [...table.workers.values()].filter(
    ({ stored: { agent } }) => agent.parent_id === agentId && agent.agent_id !== agentId,
  );
}

/** Whether an agent is over: not one that goes on after the next boot, nor one that is about to restart. */
function isOver({ stored: { agent } }: AgentWorker): boolean {
  const goesOn = agent.last_exit?.cause === "daemon_stop" && agent.desired === "running";
  return isEnded(agent.state) && !goesOn;
}

/** Does with a child what the template of its parent says, now that the parent is over. */
function stopOrReparent(
  context: FamilyContext,
  child: AgentWorker,
  parent: AgentWorker,
  passed: ReadonlySet<string> = new Set(),
): void {
  const { agent, template } = child.stored;
  const { agent_id, parent_id } = parent.stored.agent;
  const reparents = parent.stored.template.template.children?.on_exit === "reparent";
  if (reparents || template.template.detach) {
    reparent(context, child, parent_id, new Set([...passed, agent_id]));
  } else if (agent.desired === "running" && !isEnded(agent.state)) {
    const reason = `its parent ${agent_id} is over`;
    const ending = { cause: "parent_exit", actor: "daemon", reason } as const;
    const change = child.setDesired({ ending }, { agent: { desired: "stopped", reason } });
    change.catch((error) =>
      context.log.error(
        { err: error },
        "the end of a child could not be journaled; it is ended all the same",
      ),
    );
  }
}

/** Gives a child to another parent, which may be over too, and have rules of its own. */
function reparent(
  context: FamilyContext,
  child: AgentWorker,
  parent_id: string | undefined,
  passed: ReadonlySet<string>,
): void {
  const change = child.setDesired({}, { agent: { parent_id } });
  change.catch((error) =>
    context.log.error({ err: error }, "the new parent of a child could not be journaled"),
  );
  const { workers } = context.table;
  const parent = parent_id === undefined || passed.has(parent_id) ? undefined : workers.get(parent_id);
  if (parent && isOver(parent)) stopOrReparent(context, child, parent, passed);
}

/** Does what an earlier daemon has not lived to do about a child whose parent is over or gone. */
function catchUpWith(context: FamilyContext, child: AgentWorker): void {
  const { table } = context;
  const { parent_id, started_at, created_at } = child.stored.agent;
  if (parent_id === undefined || table.isQuarantined(parent_id)) return;
  const parent = table.workers.get(parent_id);
  const endedAt = parent?.stored.agent.last_exit?.ended_at;
  if (!parent) reparent(context, child, undefined, new Set());
  // One that was started after its parent's end was started in the knowledge of that.
  else if (isOver(parent) && endedAt !== undefined && (started_at ?? created_at) <= endedAt)
    stopOrReparent(context, child, parent);
}

function refuseTooMany(table: AgentTable, { parent_id }: Agent): void {
  const max = parent_id && table.workers.get(parent_id)?.stored.template.template.children?.max;
  if (!max) return;
  const live = childrenOf(table, parent_id).filter(({ stored }) => !isEnded(stored.agent.state));
  if (live.length < max) return;
  throw new OpenStarryError("quota_exceeded", {
    detail: `agent ${parent_id} has ${max} live children, and its template allows no more`,
    hint: "stop or delete one of them first",
  });
}
