/** The states of an agent. Wire names: what the API, the journal and events say. */
export const AGENT_STATES = [
  /** Accepted and journaled; waiting, with the reason. No process. */
  "pending",
  /** The process exists and is not ready yet. */
  "starting",
  /** Ready, or declares no readiness. */
  "running",
  /** Asked to end; the grace period is running. */
  "stopping",
  /** Ended; the next start is at `next_start_at`. No process. */
  "backoff",
  /** Ended because somebody asked. The record is kept. */
  "stopped",
  /** Ended by itself, and its restart rules say no restart. */
  "exited",
  /** Given up: crash loop, spawn error, policy. */
  "failed",
] as const;
export type AgentState = (typeof AGENT_STATES)[number];

/** What is wanted, kept apart from what is observed. Durable. */
export type Desired = "running" | "stopped";

export type Health = "unknown" | "healthy" | "unhealthy";

/** Why a run ended. */
export type Cause =
  | "self"
  | "stop_request"
  | "restart"
  | "policy"
  | "oom"
  | "start_timeout"
  | "unhealthy"
  | "parent_exit"
  | "daemon_stop"
  | "host_reboot";

/**
 * How a run ended, as the operating system told it.
 *
 * `lost` means that nobody can know; it counts as a failure and is never shown as success.
 * `raw_status` is set when a shell reported the signal as a number over 128.
 */
export type ExitStatus =
  | { kind: "exited"; code: number }
  | { kind: "signaled"; signal: string; raw_status?: number }
  | { kind: "spawn_failed"; error: { code: string; detail: string } }
  | { kind: "lost" };

/** How and why one run ended. */
export type Exit = ExitStatus & {
  run_id?: string;
  pid?: number;
  cause: Cause;
  /** Who asked: `operator`, `agent:ID`, `plugin:NAME`, `daemon`; for an end of its own, `agent:ID` itself. */
  actor: string;
  /** In words. */
  reason: string;
  /** An exit code of the template's `success_exit_codes`, or an end that was asked for. */
  success: boolean;
  started_at?: string;
  ended_at: string;
  /** The last lines that the run printed, at most 4 KiB. */
  output_tail?: string;
};

/** How sure the spawner is that it can end the whole tree. */
export type Containment = "full" | "best_effort";

/** An agent as the API shows it. A field that is absent is not known. Times are RFC 3339 in UTC. */
export interface Agent {
  agent_id: string;
  template_id: string;
  template_revision: string;
  /** The current run; the last one when no process lives. */
  run_id?: string;
  state: AgentState;
  /** Why it is in this state, in words. */
  reason?: string;
  desired: Desired;
  health: Health;
  /** The agent's own process, while one lives. */
  pid?: number;
  parent_id?: string;
  spawner: string;
  containment?: Containment;
  /** Automatic restarts since it was created; asked-for ones are not counted. */
  restarts: number;
  created_at: string;
  started_at?: string;
  ready_at?: string;
  /** In `backoff`, and in `pending` where a start was put off. */
  next_start_at?: string;
  last_exit?: Exit;
  resources?: Resources;
  /** Of the current run, or the last one. */
  limits?: AgentLimits;
  /** While its CPU is slowed down. */
  throttle?: Throttle;
  /** Of the current run, or the last one. */
  usage?: Usage;
  /** The usage of all its runs together, and of all agents below it: those that are gone count too. */
  spent?: Usage;
  /** The last heartbeat's own words. */
  status?: string;
  progress?: number;
  labels: Record<string, string>;
}

/** What a run uses, over its whole tree. Kept in memory, and never in the journal for longer than a run. */
export interface Resources {
  /** Of one core, since the sample before: 250 is two and a half cores. */
  cpu_percent: number;
  /** CPU time that the run has used, in milliseconds; of processes that have ended what was seen of it. */
  cpu_ms: number;
  /** The resident memory of all processes. What several of them share is counted for each. */
  memory_bytes: number;
  processes: number;
  /** As `memory_bytes`, with what processes share counted once. Only where it was asked for. */
  pss_bytes?: number;
  sampled_at: string;
}

export const LIMIT_NAMES = [
  "memory_max",
  "cpu_max",
  "pids_max",
  "open_files_max",
  "run_time_max",
  "idle_max",
] as const;
export type LimitName = (typeof LIMIT_NAMES)[number];

/** The limits of the section `budget`: of what is reported, not of what is measured. */
export const BUDGET_NAMES = ["tokens_max", "cost_max_usd"] as const;
export type BudgetName = (typeof BUDGET_NAMES)[number];

/** What is done about a limit that was exceeded. */
export type LimitAction = "warn" | "throttle" | "stop" | "restart";

/** The limits that a run was started with. */
export type AgentLimits = Partial<Record<LimitName, Limit>>;

export interface Limit {
  /** Bytes, percent of one core, a number, or for times seconds. */
  value: number;
  /**
   * `kernel`: the operating system does not let it be exceeded. `polling`: somebody looks at regular
   * intervals, and acts afterwards.
   */
  held_by: "kernel" | "polling";
  /** Absent for `open_files_max`: the operating system refuses, and that is all. */
  on_exceed?: LimitAction;
}

/** A limit was exceeded, or the operating system had to act so that it was not. */
export interface LimitReport {
  limit: LimitName | BudgetName;
  /** As in `Limit`; of a budget, tokens or US dollars. */
  value: number;
  /** What was measured, in the same unit. Absent where the operating system counts only that it acted. */
  measured?: number;
  /** What is done: for a budget after some time. `kill` and `refuse` are the operating system's own. */
  action: LimitAction | "kill" | "refuse";
  /** When that is done; absent: at once. */
  due_at?: string;
  /** In words, with the figures. */
  reason: string;
}

/** The CPU of a whole tree, slowed down. */
export interface Throttle {
  /** Of one core. */
  percent: number;
  /** `quota`: it gets no more than that. `nice`: no quota could be set; it only gives way to others. */
  by: "quota" | "nice";
  /** Who asked, and why. */
  actor: string;
  reason: string;
}

/** What the agent said it has used: a report, not a measurement. */
export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cost_usd: number;
}

/** One finished run, kept with what it left behind. */
export interface RunRecord {
  run_id: string;
  agent_id: string;
  exit: Exit;
  /** What the agent wrote to `OPENSTARRY_RESULT_FILE`, as it wrote it; at most 1 MiB. */
  result?: string;
}

/** `agent_id` and `template_id`. They become file names, so nothing else is allowed in them. */
export const ID_PATTERN = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$/;

/** The records of services (`ServiceSpec`) are kept among the agents', under ids that no agent can have. */
export const SERVICE_ID_PATTERN = /^svc:[a-z][a-z0-9-]{0,40}$/;

export function isService({ agent_id }: Pick<Agent, "agent_id">): boolean {
  return agent_id.startsWith("svc:");
}

/** States in which no process lives and none will without being asked. */
export const ENDED_STATES: readonly AgentState[] = ["stopped", "exited", "failed"];
