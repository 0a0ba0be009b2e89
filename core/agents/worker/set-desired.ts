import type { Agent } from "../../contracts/agent.js";
import type { StoredAgent } from "../../contracts/stored-agent.js";
import { type AgentEvent, transition } from "../state.js";
import { eventOf, quietly, type WorkerContext } from "./context.js";

/** A change of what is desired of an agent. */
export interface DesiredChange {
  /** Of the agent as it is shown. */
  agent?: Partial<Agent>;
  /** What it means to the state machine. */
  event?: AgentEvent;
  /** A shorter grace for the end that it leads to. */
  graceMs?: number;
}

/**
 * Changes what is desired, journals it, and has it acted on. Ends are acted on at once; what is to run waits at its
 * gate until the change is durable. Rejects with `journal_unavailable`: then nothing is changed, except that an end
 * happens all the same.
 */
export async function setDesired(
  context: WorkerContext,
  patch: Partial<StoredAgent>,
  change: DesiredChange = {},
): Promise<void> {
  const { state, deps, timers } = context;
  const before = state.stored;
  state.deferred = undefined;
  const from = before.agent.state;
  const to = change.event === undefined ? undefined : transition(from, change.event);
  const moved = to === undefined ? {} : { state: to };
  const agent = { ...before.agent, ...change.agent, ...moved };
  state.stored = { ...before, ...patch, agent };
  if (change.graceMs !== undefined)
    state.graceMs = Math.min(state.graceMs ?? Number.POSITIVE_INFINITY, change.graceMs);
  const wantsEnd = agent.desired === "stopped" || state.stored.ending !== undefined;
  const { reason } = agent;
  const events =
    to === undefined ? [] : [eventOf(context, "agent.state", { from, to, ...(reason ? { reason } : {}) })];
  if (to !== undefined) timers.follow(state.stored);
  const written = deps.write({ put: [state.stored], events });
  state.pendingWrite = written;
  context.poke();
  try {
    await written;
  } catch (error) {
    state.pendingWrite = Promise.resolve();
    if (wantsEnd) void quietly(context.journal.write({}));
    else {
      // Only what is still as this change made it: other things may have happened meanwhile.
      const agentNow = undo(state.stored.agent, before.agent, { ...change.agent, ...moved });
      state.stored = { ...undo(state.stored, before, patch), agent: agentNow };
    }
    if (to !== undefined) timers.follow(state.stored);
    throw error;
  }
  context.changed();
}

/** `now` with the keys of `patch` put back to what they were, where nothing else has changed them since. */
function undo<T extends object>(now: T, were: T, patch: Partial<T>): T {
  const mine = (Object.keys(patch) as (keyof T)[]).filter((key) => now[key] === patch[key]);
  return { ...now, ...Object.fromEntries(mine.map((key) => [key, were[key]])) };
}
