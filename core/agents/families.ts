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

export function createFamilies(table: AgentTable, log: Logger): Families {
  const { workers } = table;

  function childrenOf(agentId: string): AgentWorker[] {
    return [...workers.values()].filter(
      ({ stored: { agent } }) => agent.parent_id === agentId && agent.agent_id !== agentId,
    );
  }

  /** Not of one that goes on after the next boot, nor of one that is about to restart. */
  function isOver({ stored: { agent } }: AgentWorker): boolean {
    const goesOn = agent.last_exit?.cause === "daemon_stop" && agent.desired === "running";
    return isEnded(agent.state) && !goesOn;
  }

  function seeTo(child: AgentWorker, parent: AgentWorker, passed: ReadonlySet<string> = new Set()) {
    const { agent, template } = child.stored;
    const { agent_id, parent_id } = parent.stored.agent;
    const reparents = parent.stored.template.template.children?.on_exit === "reparent";
    if (reparents || template.template.detach) {
      handUp(child, parent_id, new Set([...passed, agent_id]));
    } else if (agent.desired === "running" && !isEnded(agent.state)) {
      const reason = `its parent ${agent_id} is over`;
      const ending = { cause: "parent_exit", actor: "daemon", reason } as const;
      const change = child.setDesired({ ending }, { agent: { desired: "stopped", reason } });
      change.catch((error) => log.error({ err: error }, "the end of a child could not be journaled"));
    }
  }

  /** Whoever it is handed to may be over too, and have rules of its own. */
  function handUp(child: AgentWorker, parent_id: string | undefined, passed: ReadonlySet<string>) {
    const change = child.setDesired({}, { agent: { parent_id } });
    change.catch((error) => log.error({ err: error }, "a child could not be handed up"));
    const parent = parent_id === undefined || passed.has(parent_id) ? undefined : workers.get(parent_id);
    if (parent && isOver(parent)) seeTo(child, parent, passed);
  }

  return {
    over(parent) {
      if (!isOver(parent)) return;
      for (const child of childrenOf(parent.stored.agent.agent_id)) seeTo(child, parent);
    },
    gone({ agent_id, parent_id }) {
      for (const child of childrenOf(agent_id)) handUp(child, parent_id, new Set([agent_id]));
    },
    catchUp() {
      for (const child of workers.values()) {
        const { parent_id, started_at, created_at } = child.stored.agent;
        if (parent_id === undefined || table.isQuarantined(parent_id)) continue;
        const parent = workers.get(parent_id);
        const endedAt = parent?.stored.agent.last_exit?.ended_at;
        if (!parent) handUp(child, undefined, new Set());
        // One that was started after its parent's end was started in the knowledge of that.
        else if (isOver(parent) && endedAt !== undefined && (started_at ?? created_at) <= endedAt)
          seeTo(child, parent);
      }
    },
    refuseTooMany({ parent_id }) {
      const max = parent_id && workers.get(parent_id)?.stored.template.template.children?.max;
      if (!max) return;
      if (childrenOf(parent_id).filter(({ stored }) => !isEnded(stored.agent.state)).length < max) return;
      throw new OpenStarryError("quota_exceeded", {
        detail: `agent ${parent_id} has ${max} live children, and its template allows no more`,
        hint: "stop or delete one of them first",
      });
    },
  };
}
