import type { DaemonEvent, PluginContext, StateStore } from "../../core/index.js";

const OWNED = "agent:";

/**
 * An agent's namespace begins empty, and ends with the agent. While the store cannot be used that is left until
 * it can: whoever uses it next finds it done.
 */
export function createNamespaceKeeper(ctx: Pick<PluginContext, "agents" | "log">, store: StateStore) {
  const owed = new Set<string>();
  let owesSweep = false;

  /** Those of agents that were deleted in the last moment of a daemon that died. */
  async function sweep(): Promise<void> {
    for (const name of await store.namespaces()) {
      if (!name.startsWith(OWNED)) continue;
      const agentId = name.slice(OWNED.length);
      // One in quarantine may live; its namespace goes when it is discarded.
      if (!ctx.agents.get(agentId) && ctx.agents.quarantined(agentId) === undefined) owed.add(name);
    }
    owesSweep = false;
  }

  /** Rejects where something could not be done, and then it is still owed. */
  async function settle(): Promise<void> {
    if (owesSweep) await sweep();
    for (const name of owed) {
      await store.drop(name);
      owed.delete(name);
    }
  }

  function attempt(): void {
    if (store.health() !== undefined) return;
    settle().catch((err) =>
      ctx.log.warn({ err }, "a namespace could not be cleared away; it is before the next use"),
    );
  }

  return {
    /** Rejects with `state_unavailable` for a namespace that should be empty and may not be. */
    async ready(namespace: string): Promise<void> {
      if (!owesSweep && owed.size === 0) return;
      await settle().catch((error) => {
        if (owed.has(namespace) || (owesSweep && namespace.startsWith(OWNED))) throw error;
      });
    },
    onEvent({ type, agent_id }: DaemonEvent): void {
      const isNew = type === "agent.created" && store.health() !== undefined;
      if (!isNew && type !== "agent.deleted") return;
      owed.add(OWNED + agent_id);
      attempt();
    },
    onDaemonReady(): void {
      owesSweep = true;
      attempt();
    },
  };
}
