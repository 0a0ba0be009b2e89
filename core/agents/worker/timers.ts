import type { Clock } from "../../contracts/clock.js";
import type { StoredAgent } from "../../contracts/stored-agent.js";
import { formatDuration } from "../../lib/units.js";
import { isEnded } from "../state.js";

/** What an agent's timers lead to. */
export interface TimerActions {
  /** The backoff is over: the agent is due. */
  backoffOver(): void;
  /** The run did not become ready in time. */
  notReady(runId: string, reason: string): void;
  /** The record has been kept long enough. */
  forget(): void;
}

export interface AgentTimers {
  /** Arms what the agent's state wants, instead of what was armed before. */
  follow(stored: StoredAgent): void;
  /** Once, unless the state changes before. */
  retry(afterMs: number, again: () => void): void;
  /** Leaves a start at least so long from now. */
  extendStart(withinMs: number): void;
  /** Nobody waits for readiness any more. */
  stopWaitingForReady(): void;
  dispose(): void;
}

export function createAgentTimers(clock: Clock, actions: TimerActions): AgentTimers {
  const armed = new Map<string, () => void>();
  /** What a start that takes too long leads to, and when, by the monotonic clock. */
  let start: { dueMs: number; notReady: () => void } | undefined;

  function arm(name: string, delayMs: number, callback: () => void) {
    armed.get(name)?.();
    armed.set(name, clock.after(delayMs, callback));
  }

  function dispose() {
    for (const cancel of armed.values()) cancel();
    armed.clear();
    start = undefined;
  }

  return {
    dispose,
    retry: (afterMs, again) => arm("retry", afterMs, again),
    extendStart(withinMs) {
      const dueMs = clock.monotonic() + withinMs;
      if (!start || dueMs <= start.dueMs) return;
      start = { ...start, dueMs };
      arm("ready", withinMs, start.notReady);
    },
    stopWaitingForReady: () => armed.get("ready")?.(),
    follow({ agent, template: { template } }) {
      dispose();
      const { state, run_id } = agent;
      if (state === "backoff") {
        const left = agent.next_start_at === undefined ? 0 : Date.parse(agent.next_start_at) - clock.now();
        // The clock may have been set back since: nobody waits longer than the longest backoff.
        arm("due", Math.min(Math.max(0, left), template.restart.backoff.maxMs), actions.backoffOver);
      }
      if (state === "starting" && template.readiness && run_id !== undefined) {
        const { timeoutMs } = template.readiness;
        const sinceMs = clock.monotonic();
        const notReady = () =>
          actions.notReady(run_id, `it was not ready within ${formatDuration(clock.monotonic() - sinceMs)}`);
        start = { dueMs: sinceMs + timeoutMs, notReady };
        arm("ready", timeoutMs, notReady);
      }
      if (isEnded(state) && template.removeAfterMs !== undefined) {
        const ended = Date.parse(agent.last_exit?.ended_at ?? agent.created_at);
        const left = ended + template.removeAfterMs - clock.now();
        // As above: kept no longer than that from now on.
        arm("forget", Math.min(Math.max(0, left), template.removeAfterMs), actions.forget);
      }
    },
  };
}
