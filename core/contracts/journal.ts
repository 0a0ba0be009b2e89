import type { RunRecord } from "./agent.js";
import type { DaemonEvent, NewEvent } from "./events.js";
import { defineSlot } from "./slot.js";
import type { StoredAgent } from "./stored-agent.js";

/** What changes together. */
export interface JournalBatch {
  put?: readonly StoredAgent[];
  /** Agents to forget, with their runs and their secrets. Their events stay. */
  forget?: readonly string[];
  runs?: readonly RunRecord[];
  events?: readonly NewEvent[];
  memos?: readonly Memo[];
  /**
   * False: it has to outlive the daemon, and not a loss of power: what is true of processes ends with
   * the machine anyway. Absent or true, as for every wish that is acknowledged: it outlives both.
   */
  sync?: boolean;
}

/** A small fact with an end: what makes an `Idempotency-Key` mean the same thing twice. */
export interface Memo {
  key: string;
  value: unknown;
  /** Milliseconds since the epoch. */
  expiresAtMs: number;
}

/** A record that could not be read. It is kept where it was and never acted on. */
export interface Quarantined {
  key: string;
  error: string;
}

export interface EventQuery {
  /** Only events with a greater id. */
  after: number;
  limit: number;
  agentId?: string;
}

/**
 * The daemon's memory: agents, finished runs, events.
 *
 * A batch is one transaction: after a crash all of it is there or none of it. No resolved
 * environment value is ever in a batch; values that a person gave for one agent go through
 * `secrets`, which an implementation keeps apart.
 */
export interface Journal {
  readonly capabilities: { readonly durable: boolean };
  /** Reads everything that is to be supervised. Called once, after the plugin's `start`. */
  load(): Promise<{ agents: StoredAgent[]; quarantined: Quarantined[] }>;
  /**
   * Resolves when the batch is durable (when `capabilities.durable`) with its events, now numbered.
   * Rejects with `journal_unavailable` when it could not be written, or not be made
   * durable: then it may not be counted on, and its events are told to nobody.
   */
  append(batch: JournalBatch): Promise<DaemonEvent[]>;
  /** In order of id. `gap` says that events after `after` were pruned and are gone. */
  events(query: EventQuery): Promise<{ events: DaemonEvent[]; gap: boolean }>;
  /** The id of the newest event; 0 when there is none. */
  lastEventId(): number;
  /** Newest first. */
  runs(agentId: string, limit: number): Promise<RunRecord[]>;
  /** `undefined` when unknown or over. */
  memo(key: string): Promise<unknown>;
  readonly secrets: {
    get(agentId: string): Promise<Record<string, string>>;
    set(agentId: string, values: Readonly<Record<string, string>>): Promise<void>;
  };
}

export const journal = defineSlot<Journal>("journal", "one");
