import type {
  Agent,
  AgentState,
  Cause,
  DaemonEvent,
  DaemonStatus,
  EventType,
  Exit,
  InvalidTemplate,
  PluginInfo,
  TemplateInput,
} from "../../../core/index.js";

export type {
  Agent,
  AgentState,
  DaemonEvent,
  DaemonStatus,
  Exit,
  ExitStatus,
  PluginInfo,
  StateChange,
  StateEntry,
  TemplateInput,
  Usage,
} from "../../../core/index.js";

/** What every call takes. */
export interface CallControl {
  /** Gives up, and rejects with the signal's reason. What was asked for may have been done. */
  signal?: AbortSignal;
}

/** The body of `POST /agents`. */
export interface CreateInput {
  /** Absent: the daemon makes one up from the template's name. */
  agent_id?: string;
  /** Required, unless `command` is given. */
  template_id?: string;
  /** Instead of a template, for the operator only: a program and its arguments. No shell. */
  command?: string[];
  /** Where `command` runs; absolute. */
  cwd?: string;
  params?: Record<string, unknown>;
  labels?: Record<string, string>;
  /** Values for this agent alone. The operator's only. */
  env?: Record<string, string>;
  /** False: the record is made and stays `stopped`. */
  start?: boolean;
}

export interface CreateOptions extends CallControl {
  /** Absent: answered once the process exists, or has to wait. */
  waitFor?: "ready";
  /** How long `waitFor` may take, in milliseconds; after that the agent is answered as it is. Default 60,000. */
  timeoutMs?: number;
  /** Two requests with one key make one agent. Default: a new one for every call. */
  idempotencyKey?: string;
  /** Checks everything, and starts nothing. */
  dryRun?: boolean;
}

export interface AgentQuery {
  state?: AgentState;
  template_id?: string;
  parent_id?: string;
  /** `name=value`, or `name` alone. */
  label?: string;
  /** The services of plugins too. */
  all?: boolean;
  /** Default 100, at most 1,000. */
  limit?: number;
  cursor?: string;
}

export interface AgentPage {
  items: Agent[];
  /** Absent on the last page. */
  next_cursor?: string;
}

export interface WaitOptions extends CallControl {
  /** `ended`: no process, and none to come. `ready`: ready, or it will not become so by itself. */
  for: "ready" | "ended";
  /** In milliseconds. Absent: as long as it takes. */
  timeoutMs?: number;
}

export interface VerbOptions extends CallControl {
  /** False: answered as soon as the daemon has taken note, not when it is done. */
  wait?: boolean;
}

export interface StopOptions extends VerbOptions {
  /** How long it may take to end by itself, in milliseconds. Default: as the template says. */
  graceMs?: number;
  /** Ends it by SIGKILL at once. */
  force?: boolean;
}

/** What the newest finished run left, uninterpreted. */
export interface Result {
  agent_id: string;
  run_id: string;
  result: string;
  exit: Exit;
}

export interface LogQuery {
  /** Absent: both. */
  stream?: "stdout" | "stderr";
  /** How many lines: the last ones, or with `cursor` the next ones. Default 100; with `since` all that fit. */
  tail?: number;
  /** Of the run before the newest one. */
  previous?: boolean;
  /** Nothing printed before, of whichever run: RFC 3339, or a duration such as `10m` for so long ago. */
  since?: string;
  /** Nothing printed later: likewise. */
  until?: string;
  /** Only what came after the line of this cursor. */
  cursor?: string;
  /** `base64`: the very bytes. Default `utf8`: text, with a mark in place of bytes that are none. */
  encoding?: "utf8" | "base64";
}

export interface LogLine {
  run_id: string;
  stream: "stdout" | "stderr";
  /** Absent when base64 was asked for. */
  text?: string;
  base64?: string;
  /** True: no line end so far. What this stream of the run prints next goes on with it. */
  partial?: boolean;
  /** What was before it is gone: beyond `logs.keep`, or the agent emptied its own file. */
  gap?: "pruned" | "truncated";
  cursor: string;
}

export interface LogPage {
  items: LogLine[];
  /** For what comes later. Absent: nothing was printed yet. */
  next_cursor?: string;
}

export interface FollowOptions extends CallControl {
  /** For how long a lost connection is tried again, in milliseconds. Default 30,000. */
  reconnectForMs?: number;
}

export interface SampleQuery {
  /** RFC 3339, or a duration such as `10m`: so long ago. Absent: all that are kept. */
  since?: string;
  /** Where there are more, some that stand next to each other are told as one. Default 300. */
  points?: number;
}

/** Oldest first. */
export interface SamplePage {
  items: {
    sampled_at: string;
    run_id: string;
    /** Of one core, over the whole tree; the mean. */
    cpu_percent: number;
    memory_bytes: number;
    processes: number;
  }[];
}

/** Why an agent is in the state that it is in. */
export interface Why {
  agent_id: string;
  /** `quarantined`: its record cannot be read. */
  state: AgentState | "quarantined";
  /** What is the case and how it came about. */
  summary: string;
  /** Absent: in quarantine. */
  desired?: "running" | "stopped";
  /** What will happen by itself, and when. */
  next: string;
  /** What that rests on: what happened, oldest first, then what is the case now. */
  evidence: {
    /** `limit`, `requirement`, `signal` …: what it is about. */
    kind: string;
    /** In words, with the figures that were seen. */
    text: string;
    /** Absent: now. */
    at?: string;
    run_id?: string;
    /** Whose doing it is. */
    actor?: string;
  }[];
  /** What the run that lives, and the last one that ended, used. */
  curves: WhyCurve[];
  /** Newest first. */
  last_runs: {
    run_id: string;
    /** How it ended, in words. */
    status: string;
    cause: Cause;
    actor: string;
    reason: string;
    uptime?: string;
    ended_at: string;
  }[];
  /** The last lines that it printed, at most 4 KiB. */
  output_tail?: string;
  /** What to do, if anything. */
  hint: string;
}

/** One run's use of the machine. In `sparkline` the lowest block is nothing, the highest the maximum. */
export interface WhyCurve {
  run_id: string;
  since: string;
  until: string;
  samples: number;
  memory: { sparkline: string; min_bytes: number; max_bytes: number; last_bytes: number };
  /** Of one core. */
  cpu: { sparkline: string; min_percent: number; max_percent: number; last_percent: number };
}

export interface EventPageQuery {
  /** The `next_cursor` of the page before. Default 0: from the oldest. */
  after?: number | string;
  /** Default 100, at most 1,000. */
  limit?: number;
}

export interface EventPage {
  /** Oldest first. */
  items: DaemonEvent[];
  /** Older ones were pruned. */
  gap: boolean;
  /** Absent on the last page. */
  next_cursor?: string;
}

export interface EventQuery extends FollowOptions {
  /** The id of the last event that is known. Absent: from now on. */
  lastEventId?: number | string;
  /** Only events of this agent. */
  agent_id?: string;
  type?: EventType;
}

/** Events between the ids `after` and `next` were pruned before they could be told. */
export interface EventGap {
  type: "gap";
  after: number;
  next: number;
}

/** A message as the bus gave it. */
export interface BusMessage {
  /** Good for `after`. Absent: it was not kept. */
  position?: string;
  topic: string;
  /** Absent where it was no JSON. */
  payload?: unknown;
  /** Then its bytes. */
  payload_base64?: string;
  /** RFC 3339, UTC. */
  at: string;
  /** Who published it, as the daemon knows it: `agent:ID`, `operator`, `plugin:NAME`. */
  from?: string;
  /** Where an answer is waited for. */
  reply_to?: string;
}

export interface PublishOptions extends CallControl {
  /** False: only for those who are subscribed now. Default true. */
  keep?: boolean;
  /** A topic on which an answer is waited for. */
  reply_to?: string;
}

export interface RequestOptions extends CallControl {
  keep?: boolean;
  /** How long to wait for the reply, in milliseconds. Default 30,000, at most 600,000. */
  timeoutMs?: number;
}

export interface BusQuery extends FollowOptions {
  /** Kept messages after this position first; `"0"`: all of them. Absent: what comes. */
  after?: string;
}

export interface ConsumeQuery extends BusQuery {
  /** Its members share the filter's messages; `after` says where a new group begins. */
  group: string;
  /** What is not settled for so long is delivered again, in milliseconds. Default 30,000. */
  ackWaitMs?: number;
  /** No more than this before one is settled. Default 1. */
  maxInFlight?: number;
}

/** A message of a group, until it is settled. */
export interface BusDelivery {
  message: BusMessage;
  /** 1 for the first time. */
  attempt: number;
  /** It is done with. Rejects with `delivery_is_over` when it came too late: the message is delivered again. */
  ack(): Promise<void>;
  /** Deliver it again, to whichever member, after `delayMs`. Default 0. */
  nack(delayMs?: number): Promise<void>;
}

/** A template as one needs to know it to start an agent from it. */
export interface TemplateSummary {
  template_id: string;
  description: string;
  revision: string;
  /** Where it came from: a file, an address. */
  origin: string;
  /** JSON Schema of an object. */
  params: { properties: Record<string, Record<string, unknown>>; required: string[]; [key: string]: unknown };
  requires: string[];
  labels: Record<string, string>;
}

export interface TemplateList {
  items: TemplateSummary[];
  invalid: InvalidTemplate[];
}

/** A template as it was written. */
export interface TemplateView {
  template_id: string;
  revision: string;
  origin: string;
  document: TemplateInput;
}

export interface TemplatePut {
  template_id: string;
  revision: string;
  origin: string;
  /** False: it has replaced one. */
  created: boolean;
}

/** What an agent's heartbeat is answered with. */
export interface HeartbeatAnswer {
  agent_id: string;
  run_id: string;
  state: string;
  /** What is the matter, such as that it does not get on. */
  reason?: string;
}

/** Who the token belongs to. */
export interface WhoAmI {
  kind: "operator" | "agent" | "internal" | "anonymous";
  /** As `actor` fields show it. */
  id: string;
  agent_id?: string;
  run_id?: string;
  template_id?: string;
  /** In words. */
  may: string[];
  /** The names of the operations that it may ask for. */
  operations: string[];
}

export interface PluginList {
  items: PluginInfo[];
}

/** Something that the daemon hosts for agents. */
export interface EndpointView {
  name: string;
  protocol: string;
  health: "healthy" | "unhealthy";
  problem?: string;
}

export interface Infrastructure {
  items: EndpointView[];
}

/** The daemon as a whole. */
export interface DaemonView extends DaemonStatus {
  /** How many there are in each state. */
  agents: Record<AgentState, number>;
  endpoints: EndpointView[];
}

export interface StatePutOptions extends CallControl {
  /** It is gone so long after it was put, in milliseconds. */
  ttlMs?: number;
  /** Only when the value has this version, or is absent. */
  ifVersion?: number | "absent";
}

export type StateDeleteOptions = Omit<StatePutOptions, "ttlMs">;

/** `ttl` is a duration, as in `"10m"`. */
export type StateWriteInput =
  | { op: "put"; key: string; value: unknown; ttl?: string; if_version?: number | "absent" }
  | { op: "delete"; key: string; if_version?: number | "absent" };

export interface StateListQuery extends CallControl {
  /** Only keys that begin so. */
  prefix?: string;
  /** Without the values. */
  keysOnly?: boolean;
}

export interface StateWatchQuery extends CallControl {
  /** Only keys that begin so. */
  prefix?: string;
  /**
   * Keys that changed after this version first; 0: all. Absent: what changes from now on, also when the
   * connection is lost before the first change.
   */
  after?: number;
  /** For how long a lost connection is tried again, in milliseconds. Default 30,000. */
  reconnectForMs?: number;
}
