import type { AgentState, Exit, Health, LimitReport, Throttle, Usage } from "./agent.js";
import type { ProgressStep } from "./agent-reports.js";

/**
 * What each type of event carries. Wire names: the API's streams, the bus and the journal hold them as they are.
 * Events of earlier versions may lack what is optional here.
 */
export interface EventData {
  "agent.created": { template_id?: string; parent_id?: string; actor?: string; reason?: string };
  "agent.state": { from: AgentState; to: AgentState; reason?: string };
  "agent.health": { from: Health; to: Health; reason: string };
  /** What is done about a run that makes no progress; `resumed`: it makes progress again. */
  "agent.progress": { step: ProgressStep; reason: string };
  "agent.exited": Exit;
  /** What the agent said of itself. `usage` is the run's so far. */
  "agent.heartbeat": { status?: string; progress?: number; usage?: Usage };
  "agent.limit": LimitReport & { actor?: string; held_by?: "kernel" | "polling" };
  /** `percent` absent: the CPU was given back. */
  "agent.throttled": { percent?: number; by?: Throttle["by"]; actor: string; reason: string };
  "agent.deleted": { actor?: string; reason?: string };
  "plugin.degraded": { plugin: string; problem: string };
  "record.quarantined": { key: string; error: string };
  "daemon.ready": { version: string; pid: number };
  "daemon.stopping": { reason: string; agents: "stop" | "keep" };
}
export type EventType = keyof EventData;

/** An event of one type. */
export interface EventOf<T extends EventType> {
  /** Rises by at least one; resume a stream after it. */
  id: number;
  type: T;
  /** RFC 3339, UTC. */
  at: string;
  agent_id?: string;
  run_id?: string;
  data: EventData[T];
}

/** Something that happened, in the order in which it was journaled. */
export type DaemonEvent = { [T in EventType]: EventOf<T> }[EventType];

/** An event that the journal has not numbered yet. */
export type NewEvent<T extends EventType = EventType> = { [K in T]: Omit<EventOf<K>, "id"> }[T];

export const EVENT_TYPES = [
  "agent.created",
  "agent.state",
  "agent.health",
  "agent.progress",
  "agent.exited",
  "agent.heartbeat",
  "agent.limit",
  "agent.throttled",
  "agent.deleted",
  "plugin.degraded",
  "record.quarantined",
  "daemon.ready",
  "daemon.stopping",
] as const satisfies readonly EventType[];

/** Listens to events as they are journaled. A listener ends with its plugin; one that throws degrades it. */
export interface EventListeners {
  /** Calls back for every event of one type; the returned function unsubscribes. */
  on<T extends EventType>(type: T, listener: (event: EventOf<T>) => void): () => void;
  /** Calls back for every event. */
  onAny(listener: (event: DaemonEvent) => void): () => void;
}
