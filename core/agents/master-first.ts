import type { Clock } from "../contracts/clock.js";
import type { StoredAgent } from "../contracts/stored-agent.js";
import { isEnded } from "./state.js";

/** At a boot, lets the master (the config's first agent) start before all others. */
export interface MasterFirst {
  /** A boot begins: of these agents, those that the master does not require wait until it is started. */
  begin(masterId: string, agentIds: Iterable<string>): void;
  /** Why this agent has to wait, in words. */
  blocker(agentId: string): string | undefined;
}

/** However long the master takes: after so long nobody waits for it any more. */
const LONGEST_WAIT_MS = 60_000;

/**
 * `find` answers an agent's record; the config's agents come to have theirs one after another. Nobody
 * waits for a master that waits for an agent that is not going to run.
 */
export function createMasterFirst(
  clock: Pick<Clock, "monotonic">,
  find: (agentId: string) => StoredAgent | undefined,
): MasterFirst {
  let masterId = "";
  let endsAt = 0;
  let expected = new Set<string>();

  /** What the master requires, and what that requires: agents that may not be there. */
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
    // What ended with the daemon before is about to be started.
    return !isEnded(agent.state) || (agent.state === "stopped" && agent.desired === "running");
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
