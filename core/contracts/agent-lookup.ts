import type { Agent } from "./agent.js";
import type { CreateAgent, Intent } from "./agent-control.js";
import type { Survivor } from "./spawner.js";
import type { StoredAgent } from "./stored-agent.js";
import type { PinnedTemplate } from "./template-source.js";

export interface AgentDetails {
  /** As the journal keeps it: who asked for the end that is under way, who holds it, what it was started with. */
  readonly stored: StoredAgent;
  /** Processes of it that could not be ended. */
  readonly survivors: readonly Survivor[];
}

/** Looks at agents; changes nothing. */
export interface AgentLookup {
  get(agentId: string): Agent | undefined;
  /** In order of creation. */
  list(): Agent[];
  /** The ids of the config's agents, in order of start. The first is the master. */
  configured(): readonly string[];
  /** The live run with this id. */
  byRun(runId: string): Agent | undefined;
  /** What the kernel goes by, besides what every answer shows. Not to be changed, and not to be shown whole. */
  details(agentId: string): AgentDetails | undefined;
  /** The template that the agent is pinned to. */
  template(agentId: string): PinnedTemplate | undefined;
  /** Checks everything that `create` would, and changes nothing. */
  check(spec: CreateAgent, intent: Intent): Promise<Agent>;
  /** What is wrong with an agent that has no readable record; `undefined` for all others. */
  quarantined(agentId: string): string | undefined;
  /**
   * Resolves when the condition holds: `launched` (its process exists, or it must wait or has ended),
   * `ready` (ready, or it will not become so by itself), `ended` (no process and no start to come),
   * `gone` (the record too), `settled` (no change under way). Rejects with `timeout`.
   */
  wait(
    agentId: string,
    condition: "launched" | "ready" | "ended" | "gone" | "settled",
    options?: { timeoutMs?: number; signal?: AbortSignal },
  ): Promise<Agent>;
}
