/**
 * Something that happened, in the order in which it was journaled.
 *
 * Types: `agent.created`, `agent.state`, `agent.health`, `agent.progress`, `agent.exited`,
 * `agent.heartbeat`, `agent.limit`, `agent.throttled`, `agent.deleted`, `plugin.degraded`,
 * `record.quarantined`, `daemon.ready`, `daemon.stopping`.
 */
export interface DaemonEvent {
  /** Rises by at least one; resume a stream after it. */
  id: number;
  type: EventType;
  /** RFC 3339, UTC. */
  at: string;
  agent_id?: string;
  run_id?: string;
  data: Record<string, unknown>;
}

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
] as const;
export type EventType = (typeof EVENT_TYPES)[number];

export type NewEvent = Omit<DaemonEvent, "id">;
