import type { Agent, Health, Limit, LimitReport } from "../../contracts/agent.js";
import type { Intent } from "../../contracts/agent-control.js";
import type { ProgressStep } from "../../contracts/agent-reports.js";
import { OpenStarryError } from "../../contracts/errors.js";
import type { NewEvent } from "../../contracts/events.js";
import type { RunHandle } from "../../contracts/spawner.js";
import type { StoredAgent } from "../../contracts/stored-agent.js";
import { isLive } from "../state.js";
import { eventOf, move, nowOf, quietly, show, type WorkerContext } from "./context.js";
import { endRun } from "./stop-run.js";

/** Whether a report about this run counts: the run is current, in one of these states, and not being ended. */
function isAbout({ state }: WorkerContext, runId: string, ...states: Agent["state"][]): boolean {
  const { agent, ending } = state.stored;
  return agent.run_id === runId && states.includes(agent.state) && !ending;
}

function liveHandle({ state, id }: WorkerContext): RunHandle {
  if (state.handle) return state.handle;
  throw new OpenStarryError("agent_not_running", { detail: `agent ${id} has no live process` });
}

/** Queues `onReady`. */
export function queueReady({ state, deps, hookQueue }: WorkerContext): void {
  const { agent } = state.stored;
  hookQueue.add(() => deps.hooks.onReady.promise({ agent, run_id: agent.run_id ?? "" }));
}

/** Rejects with `agent_not_running`. */
export async function signalRun(context: WorkerContext, signal: string): Promise<void> {
  await liveHandle(context).signal(signal);
}

/** Rejects with `agent_not_running`, or `throttle_unavailable`. */
export async function throttleRun(
  context: WorkerContext,
  percent: number | undefined,
  { actor, reason }: Intent,
): Promise<void> {
  const { state, journal, id } = context;
  const handle = liveHandle(context);
  if (!handle.throttle) {
    throw new OpenStarryError("throttle_unavailable", {
      detail: `the spawner ${state.stored.agent.spawner} cannot throttle agent ${id}`,
    });
  }
  const by = await handle.throttle(percent);
  if (handle !== state.handle) return;
  // What could not be given back is still shown, with what it was.
  const kept = percent ?? state.stored.agent.throttle?.percent;
  const throttle = by === undefined || kept === undefined ? undefined : { percent: kept, by, actor, reason };
  show(context, { throttle });
  await journal.write({ events: [eventOf(context, "agent.throttled", { percent, by, actor, reason })] });
}

export async function recordReady(context: WorkerContext, runId: string): Promise<void> {
  if (!isAbout(context, runId, "starting")) return;
  await quietly(move(context, "ready", { ready_at: nowOf(context) }));
  queueReady(context);
}

export async function recordStarting(
  context: WorkerContext,
  runId: string,
  { reason, withinMs }: { reason?: string; withinMs?: number },
): Promise<void> {
  if (!isAbout(context, runId, "starting")) return;
  if (reason !== undefined) show(context, { reason });
  if (withinMs !== undefined) context.timers.extendStart(withinMs);
}

/** An unhealthy run is ended; its restart rules decide what follows. */
export async function recordHealth(
  context: WorkerContext,
  runId: string,
  to: Health,
  reason: string,
): Promise<void> {
  const { state, deps, hookQueue, journal } = context;
  const { run_id, state: now, health: from } = state.stored.agent;
  if (run_id !== runId || !isLive(now) || from === to) return;
  show(context, { health: to });
  const { agent } = state.stored;
  hookQueue.add(() => deps.hooks.onHealthChange.promise({ agent, run_id: runId, from, to }));
  await quietly(journal.write({ events: [eventOf(context, "agent.health", { from, to, reason })] }));
  if (to === "unhealthy") endRun(context, runId, { cause: "unhealthy", actor: "daemon", reason });
}

export async function recordLimit(
  context: WorkerContext,
  runId: string,
  report: LimitReport & { actor: string },
): Promise<void> {
  const { state, journal } = context;
  const { run_id, state: now, limits = {} } = state.stored.agent;
  if (run_id !== runId || !isLive(now)) return;
  const held_by = (limits as Partial<Record<string, Limit>>)[report.limit]?.held_by;
  // It may run for some time yet: the answers to its heartbeats tell it.
  if (report.action === "stop" && !state.stored.ending) show(context, { reason: report.reason });
  await journal.write({ events: [eventOf(context, "agent.limit", { ...report, held_by })] });
}

/** A run that ends by itself after `interrupt` and before `resumed` is put down to that. */
export async function recordProgress(
  context: WorkerContext,
  runId: string,
  step: ProgressStep,
  reason: string,
): Promise<void> {
  if (!isAbout(context, runId, "running")) return;
  const { state, journal } = context;
  state.interrupted = step === "interrupt" ? { cause: "unhealthy", actor: "daemon", reason } : undefined;
  show(context, { reason: step === "resumed" ? undefined : reason });
  await quietly(journal.write({ events: [eventOf(context, "agent.progress", { step, reason })] }));
}

/**
 * Shows signs of life and figures: in memory, until the next write takes them along. With an event they are journaled
 * now, in one batch with the records of these others.
 */
export async function observe(
  context: WorkerContext,
  patch: Partial<Agent>,
  event?: NewEvent,
  others: readonly { readonly stored: StoredAgent }[] = [],
): Promise<void> {
  show(context, patch);
  if (event) await context.journal.write({ events: [event], put: others.map(({ stored }) => stored) });
}
