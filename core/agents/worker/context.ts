import type { Agent, AgentLimits } from "../../contracts/agent.js";
import type { Clock } from "../../contracts/clock.js";
import type { EventData, EventType, NewEvent } from "../../contracts/events.js";
import type { JournalBatch } from "../../contracts/journal.js";
import type { Logger } from "../../contracts/plugin.js";
import type { RestartPolicy } from "../../contracts/restart-policy.js";
import type { Spawner, SpawnSpec } from "../../contracts/spawner.js";
import type { StoredAgent } from "../../contracts/stored-agent.js";
import type { Hooks } from "../../host/hooks.js";
import { rfc3339 } from "../../lib/clock.js";
import { type AgentEvent, transition } from "../state.js";
import type { HookQueue } from "./hook-queue.js";
import type { JournalWriter } from "./journal-writer.js";
import type { AgentTimers } from "./timers.js";
import type { WorkerState } from "./worker-state.js";

/** What a worker needs of the supervisor. */
export interface WorkerDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly hooks: Hooks;
  /** Journals a batch, then publishes its events. Rejects with `journal_unavailable`. */
  write(batch: JournalBatch): Promise<void>;
  /** The spec of the next run, `beforeSpawn` included. */
  prepare(stored: StoredAgent, runId: string): Promise<SpawnSpec>;
  /** What the next run may use. */
  limits(stored: StoredAgent): AgentLimits;
  spawner(name: string): Spawner;
  policy(): RestartPolicy;
  /** Requests what the template requires: an agent that requires it is about to start. */
  requestRequired(stored: StoredAgent): void;
  /** Why the agent may not start yet, in words; `undefined`: it may. */
  blocker(stored: StoredAgent): string | undefined;
}

/** What the steps of one worker share. */
export interface WorkerContext {
  readonly id: string;
  readonly deps: WorkerDeps;
  readonly state: WorkerState;
  readonly journal: JournalWriter;
  readonly timers: AgentTimers;
  readonly hookQueue: HookQueue;
  /** Has the worker look again at what there is to do. */
  poke(): void;
  /** Tells the supervisor that the agent changed. */
  changed(): void;
  /** Tells the supervisor that the record is gone. */
  gone(): void;
}

/** Delay before a step is tried again that the journal or a spawner refused. */
export const RETRY_MS = 2_000;

export function nowOf({ deps }: Pick<WorkerContext, "deps">): string {
  return rfc3339(deps.clock.now());
}

/** An event about the agent and its current run. */
export function eventOf<T extends EventType>(
  { id, deps, state }: Pick<WorkerContext, "id" | "deps" | "state">,
  type: T,
  data: EventData[T],
): NewEvent {
  const { run_id } = state.stored.agent;
  // TypeScript cannot tell that type and data of a generic go together.
  return {
    type,
    at: rfc3339(deps.clock.now()),
    agent_id: id,
    ...(run_id === undefined ? {} : { run_id }),
    data,
  } as NewEvent;
}

/** Shows figures and words on the agent: in memory, until the next write takes them along. */
export function show({ state }: Pick<WorkerContext, "state">, patch: Partial<Agent>): void {
  state.stored = { ...state.stored, agent: { ...state.stored.agent, ...patch } };
}

/** Changes the state in memory at once; what it answers resolves when the change is durable. */
export async function move(
  context: WorkerContext,
  what: AgentEvent,
  patch: Partial<Agent>,
  more: Pick<JournalBatch, "runs" | "events"> = {},
): Promise<void> {
  const { state, timers, journal } = context;
  const from = state.stored.agent.state;
  const to = transition(from, what);
  if (to === undefined) return;
  show(context, { reason: undefined, next_start_at: undefined, ...patch, state: to });
  if (to !== "pending") state.waiting = false;
  const { reason } = state.stored.agent;
  const changed = eventOf(context, "agent.state", { from, to, ...(reason === undefined ? {} : { reason }) });
  timers.follow(state.stored);
  context.changed();
  await journal.write({ ...more, events: [...(more.events ?? []), changed] });
}

/** For what has happened: a failure to journal it must not stop what is being done, and is tried again. */
export async function quietly(recorded: Promise<void>): Promise<void> {
  await recorded.catch(() => {});
}
