import type { Agent, Cause } from "./agent.js";
import type { Memo } from "./journal.js";
import type { TemplateDocument } from "./template-source.js";

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
  /** Answers a fact that is journaled together with the record. */
  memo?(agentId: string): Memo;
}

/** For commands about one live process: a run that is no longer current makes them do nothing. */
export interface ForRun {
  run_id?: string;
}

/**
 * Changes what is desired of agents, and acts on live runs. Every method resolves when the intent is journaled, never
 * when the effect is done, so that a policy cannot hang on its own kill; `AgentLookup.wait` waits for the effect.
 */
export interface AgentControl {
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
  /** Puts an agent below another one, or below none. Nothing else changes. */
  reparent(agentId: string, parentId: string | undefined): Promise<void>;
  /** Keeps an agent from starting until it is released. */
  hold(agentId: string, intent: Intent): Promise<void>;
  release(agentId: string, intent: Intent): Promise<void>;
}
