import { type Agent, ENDED_STATES, isOpenStarryError, type PluginContext } from "../../core/index.js";

/** What follows for the children of an agent when it ends or is deleted. */
export interface ChildPolicy {
  /** Stops the children of an ended agent, or reparents them. Does nothing while the agent has not ended. */
  onAgentEnded(agentId: string): void;
  /** Reparents what stood below a deleted agent, so that a later agent of its id does not come by it. */
  onAgentDeleted(agentId: string): void;
  /** Does what an earlier daemon did not live to do. For the start, before the agents are brought back. */
  catchUp(): void;
}

export function createChildPolicy({
  agents,
  control,
  log,
}: Pick<PluginContext, "agents" | "control" | "log">) {
  const childrenOf = (parentId: string) =>
    agents.list().filter(({ agent_id, parent_id }) => parent_id === parentId && agent_id !== parentId);
  const rulesOf = (agentId: string) => agents.template(agentId)?.template;

  function stop(child: Agent, parentId: string): void {
    if (child.desired !== "running" || ENDED_STATES.includes(child.state)) return;
    const reason = `its parent ${parentId} is over`;
    void attempt(child, control.stop(child.agent_id, { cause: "parent_exit", actor: "daemon", reason }));
  }

  /** Stops the child of an ended agent, or reparents it, as the template of either says. */
  function stopOrReparent(child: Agent, parent: Agent): void {
    const reparents = rulesOf(parent.agent_id)?.children?.on_exit === "reparent";
    if (reparents || rulesOf(child.agent_id)?.detach) reparent(child, parent.parent_id, [parent.agent_id]);
    else stop(child, parent.agent_id);
  }

  /** The next parent may have ended too, and have rules of its own. */
  function reparent(child: Agent, to: string | undefined, passed: readonly string[] = []): void {
    const parent = to === undefined || passed.includes(to) ? undefined : agents.get(to);
    const isDetached = rulesOf(child.agent_id)?.detach || rulesOf(to ?? "")?.children?.on_exit === "reparent";
    if (parent && hasEnded(parent) && isDetached) {
      reparent(child, parent.parent_id, [...passed, parent.agent_id]);
      return;
    }
    void attempt(child, control.reparent(child.agent_id, to));
    if (parent && hasEnded(parent)) stop(child, parent.agent_id);
  }

  async function attempt({ agent_id }: Agent, change: Promise<unknown>): Promise<void> {
    try {
      await change;
    } catch (err) {
      // It was deleted meanwhile, or the daemon stops.
      const isMoot =
        isOpenStarryError(err) &&
        ["agent_not_found", "agent_is_deleted", "daemon_stopping"].includes(err.code);
      if (!isMoot) log.error({ agent_id, err }, "could not stop or reparent a child of an ended agent");
    }
  }

  const policy: ChildPolicy = {
    onAgentEnded(agentId) {
      const parent = agents.get(agentId);
      if (!parent || !hasEnded(parent)) return;
      for (const child of childrenOf(agentId)) stopOrReparent(child, parent);
    },
    onAgentDeleted(agentId) {
      const to = agents.get(agentId)?.parent_id;
      for (const child of childrenOf(agentId)) reparent(child, to, [agentId]);
    },
    catchUp() {
      for (const child of agents.list()) {
        const { parent_id, started_at, created_at } = child;
        if (parent_id === undefined || agents.quarantined(parent_id) !== undefined) continue;
        const parent = agents.get(parent_id);
        const endedAt = parent?.last_exit?.ended_at;
        if (!parent) reparent(child, undefined);
        // One that was started after its parent's end was started in the knowledge of that.
        else if (hasEnded(parent) && endedAt !== undefined && (started_at ?? created_at) <= endedAt)
          stopOrReparent(child, parent);
      }
    },
  };
  return policy;
}

/** Not an agent that the next daemon starts again, nor one that is about to restart. */
function hasEnded({ state, last_exit, desired }: Agent): boolean {
  const isResumed = last_exit?.cause === "daemon_stop" && desired === "running";
  return ENDED_STATES.includes(state) && !isResumed;
}
