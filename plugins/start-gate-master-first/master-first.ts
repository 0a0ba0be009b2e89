import type { Clock, StoredAgent } from "../../core/index.js";
import { ENDED_STATES } from "../../core/index.js";

/** Lets the master (the config's first agent) start before all others when the daemon starts. */
export interface MasterFirst {
  /** The daemon starts: of these agents, those that the master does not require wait until it has started. */
  begin(masterId: string, agentIds: Iterable<string>): void;
  /** Says why this agent has to wait. */
  blocker(agentId: string): string | undefined;
}

/** However long the master takes, no agent waits longer for it. */
const LONGEST_WAIT_MS = 60_000;

/**
 * `find` answers an agent's record; the config's agents get theirs one after another. No agent waits for a master that
 * waits for an agent that is not going to run.
 */
export function createMasterFirst(
  clock: Pick<Clock, "monotonic">,
  find: (agentId: string) => StoredAgent | undefined,
): MasterFirst {
  let masterId = "";
  let endsAt = 0;
  let expected = new Set<string>();

  /** What the master requires, and what that requires: agents that may not exist. */
  function requiredBy(agentId: string, found = new Set<string>()): Set<string> {
    for (const need of find(agentId)?.template.template.requires ?? []) {
      const id = need.startsWith("agent:") ? need.slice("agent:".length) : undefined;
      if (id !== undefined && !found.has(id)) requiredBy(id, found.add(id));
    }
    return found;
  }

  function willRun(agentId: string): boolean {
    const agent = find(agentId)?.agent;
    if (!agent) return expected.has(agentId);
    // The daemon before this one stopped it: it is about to be started.
    const isResumed = agent.state === "stopped" && agent.desired === "running";
    return isResumed || !ENDED_STATES.includes(agent.state);
  }

  function hasStarted(agentId: string): boolean {
    const state = find(agentId)?.agent.state;
    return state !== undefined && state !== "pending" && state !== "stopped";
  }

  return {
    begin(master, agentIds) {
      masterId = master;
      endsAt = clock.monotonic() + LONGEST_WAIT_MS;
      expected = new Set(agentIds);
    },
    blocker(agentId) {
      if (agentId === masterId || !expected.has(agentId)) return undefined;
      const required = requiredBy(masterId);
      if (required.has(agentId)) return undefined;
      const isComing =
        clock.monotonic() < endsAt && !hasStarted(masterId) && [masterId, ...required].every(willRun);
      if (isComing) return `waits for agent:${masterId}, which is started first`;
      expected = new Set();
      return undefined;
    },
  };
}
