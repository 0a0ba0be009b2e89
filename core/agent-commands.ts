import type { Agent, Cause, Health, LimitReport, RunRecord, Usage } from "./contracts/agent.js";
import type { DaemonEvent } from "./contracts/events.js";
import type { Memo } from "./contracts/journal.js";
import type { ProbeRole } from "./contracts/probe.js";
import type { Survivor } from "./contracts/spawner.js";
import type { StoredAgent } from "./contracts/stored-agent.js";
import type { InvalidTemplate, PinnedTemplate, TemplateDocument } from "./contracts/template-source.js";
import type { ChosenProbe } from "./template-checks.js";

export type ProgressStep = "nudge" | "interrupt" | "restart" | "resumed";

/** Who wants something, and why: kept with what it leads to. */
export interface Intent {
  /** `operator`, `agent:ID`, `plugin:NAME`, `daemon`. */
  actor: string;
  reason: string;
  /** What a run that ends by this is attributed to. */
  cause?: Cause;
}

export interface CreateAgent {
  /** Absent: one is made from the template's name. */
  agent_id?: string;
  template_id: string;
  /** Instead of looking `template_id` up. */
  template?: TemplateDocument;
  params?: Record<string, unknown>;
  labels?: Record<string, string>;
  /** Literal values for this agent alone; kept apart from the journal. */
  env?: Record<string, string>;
  parent_id?: string;
  /** False: the record is made, and stays `stopped`. */
  start?: boolean;
  /** Journaled together with the intent. */
  memo?: Memo;
}

/** For commands about one live process: a run that is no longer current makes them do nothing. */
export interface ForRun {
  run_id?: string;
}

export interface AgentDetails {
  /** As the journal keeps it: who asked for the end that is under way, who holds it, what it was started with. */
  readonly stored: StoredAgent;
  /** Processes of it that could not be ended. */
  readonly survivors: readonly Survivor[];
}

/**
 * The kernel's own verbs. Every one that changes something resolves when the intent is journaled,
 * never when the effect is done, so that a policy cannot hang on its own kill; `settled` waits.
 */
export interface AgentCommands {
  get(agentId: string): Agent | undefined;
  /** In order of creation. */
  list(): Agent[];
  /** The first agent of the config. */
  master(): Agent | undefined;
  /** The live run with this id. */
  byRun(runId: string): Agent | undefined;
  /** What the kernel goes by, besides what every answer shows. Not to be changed, and not to be shown whole. */
  details(agentId: string): AgentDetails | undefined;
  /** The template that the agent is pinned to. */
  template(agentId: string): PinnedTemplate | undefined;
  /**
   * The probe that its template names for a role. `undefined` when it names none; throws `template_invalid`
   * when nobody provides it any more.
   */
  probe(agentId: string, role: ProbeRole): ChosenProbe | undefined;
  /** Looks an id up in the chain of template sources and validates it. Rejects with `template_not_found`. */
  findTemplate(templateId: string): Promise<PinnedTemplate>;
  /** Every template, an id once, and the documents that are not valid. */
  templates(): Promise<{ items: PinnedTemplate[]; invalid: InvalidTemplate[] }>;
  /** Checks everything that `create` would, and changes nothing. */
  check(spec: CreateAgent): Promise<Agent>;
  /** Rejects with `agent_exists`, `template_not_found`, `params_invalid`, and what the spawner's check says. */
  create(spec: CreateAgent, intent: Intent): Promise<Agent>;
  start(agentId: string, intent: Intent): Promise<Agent>;
  stop(agentId: string, intent: Intent & ForRun & { graceMs?: number }): Promise<Agent>;
  /**
   * Ends the live run and starts anew. With the `cause` `policy` it is no asked-for restart but a failure
   * of the run: its restart rules decide what follows, and it is counted; unless it is `uncounted`: then the
   * run is not to blame, and the agent starts again, as it is pinned, as soon as it may.
   */
  restart(agentId: string, intent: Intent & ForRun & { uncounted?: boolean }): Promise<Agent>;
  /** Stops it and forgets the record once the tree is gone. */
  remove(agentId: string, intent: Intent & { graceMs?: number }): Promise<Agent>;
  /** What is wrong with an agent that has no readable record; `undefined` for all others. */
  quarantined(agentId: string): string | undefined;
  /**
   * Ends what lives of an agent in quarantine and forgets it, so that its id is free. Resolves when that
   * is done. Rejects with `tree_survived`.
   */
  discard(agentId: string, intent: Intent): Promise<void>;
  /** To the agent's own process. Rejects with `agent_not_running`. */
  signal(agentId: string, signal: string, intent: Intent & ForRun): Promise<void>;
  /**
   * Gives its whole tree so much CPU, in percent of one core; `undefined` gives it back. For this run only;
   * resolves when it is done. Rejects with `agent_not_running`, and with `throttle_unavailable` where its
   * spawner cannot.
   */
  throttle(agentId: string, percent: number | undefined, intent: Intent & ForRun): Promise<Agent>;
  markReady(agentId: string, runId: string): Promise<void>;
  /** Why it is not ready yet; and how long it asks for from now, where it has less left. */
  markStarting(agentId: string, runId: string, note: { reason?: string; withinMs?: number }): Promise<void>;
  markHealth(agentId: string, runId: string, health: Health, reason: string): Promise<void>;
  /** A limit was exceeded: journaled as `agent.limit`. What is done about it is another command's. */
  markLimit(agentId: string, runId: string, report: LimitReport & { actor: string }): Promise<void>;
  /**
   * What is done about a live run that does not get on; `resumed`: it does again. Recorded, nothing else. A
   * run that ends by itself after `interrupt` and before `resumed` is `unhealthy`.
   */
  markProgress(agentId: string, runId: string, step: ProgressStep, reason: string): Promise<void>;
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
  /** Keeps it from starting until released. */
  hold(agentId: string, intent: Intent): Promise<void>;
  release(agentId: string, intent: Intent): Promise<void>;
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
  /** Finished runs, newest first. */
  runs(agentId: string, limit: number): Promise<RunRecord[]>;
  /** In order; `gap` when some between were pruned. */
  events(query: {
    after: number;
    limit: number;
    agentId?: string;
  }): Promise<{ events: DaemonEvent[]; gap: boolean }>;
  lastEventId(): number;
  memo(key: string): Promise<unknown>;
  /** Adds facts to the journal that outlive the daemon. */
  remember(memo: Memo): Promise<void>;
}
