import type { Health, LimitReport, Resources, Usage } from "./agent.js";

export type ProgressStep = "nudge" | "interrupt" | "restart" | "resumed";

/** Records what is observed of a live run. A report about a run that is over changes nothing. */
export interface AgentReports {
  ready(agentId: string, runId: string): Promise<void>;
  /** Why it is not ready yet; and how long it asks for from now, where it has less left. */
  starting(agentId: string, runId: string, note: { reason?: string; withinMs?: number }): Promise<void>;
  health(agentId: string, runId: string, health: Health, reason: string): Promise<void>;
  /** A limit was exceeded: journaled as `agent.limit`. What is done about it is another command's. */
  limit(agentId: string, runId: string, report: LimitReport & { actor: string }): Promise<void>;
  /**
   * What is done about a live run that does not get on; `resumed`: it does again. Recorded, nothing else. A
   * run that ends by itself after `interrupt` and before `resumed` is `unhealthy`.
   */
  progress(agentId: string, runId: string, step: ProgressStep, reason: string): Promise<void>;
  /**
   * What live runs use, by `run_id`. Shown on their agents, in memory; all other agents show nothing any more. Fires
   * `onResourceSample`, and resolves when every tap has settled.
   */
  resources(figures: ReadonlyMap<string, Resources>): Promise<void>;
  /**
   * A live sign from the agent itself. One that says nothing new is told to listeners and not journaled.
   * `usage` is the run's so far: of each figure the highest counts, and what it rose by is added to `spent` of
   * the agent and of all above it. `later`: what is new is shown and told now, and journaled with the
   * next report without `later`, unless the run ends before; `usage` that rose is journaled now all the same.
   */
  heartbeat(
    agentId: string,
    runId: string,
    report: { status?: string; progress?: number; usage?: Usage },
    options?: { later?: boolean },
  ): Promise<void>;
}
