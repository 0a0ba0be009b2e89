import { type AgentState, ENDED_STATES, type Exit, type ExitStatus } from "../contracts/agent.js";
import type { RestartDecision } from "../contracts/restart-policy.js";

/** What can happen to an agent. */
export type AgentEvent =
  /** Somebody wants it running. */
  | "start"
  /** Its process is to end: asked for, or found wanting. */
  | "end"
  /** It has no process and none is wanted. */
  | "rest"
  /** The process exists and has to become ready. */
  | "launched"
  /** The process exists and declares no readiness; or it became ready. */
  | "ready"
  /** The run is over, or could not begin; and this is what follows. */
  | "again"
  | "later"
  | "done"
  | "give_up"
  /** The backoff is over. */
  | "due";

/**
 * The state machine, as data: what is not here cannot happen, and an event without an entry is stale
 * and ignored.
 *
 * ```
 * pending ─launched→ starting ─ready→ running        any process ─end→ stopping
 *    ↑                    └── again, later, done, give_up ──┐
 *    └── due ── backoff ←later──────────────────────────────┤
 *    └────────── again ─────────────────────────────────────┤
 *                stopped ←rest── exited ←done── failed ←give_up
 * ```
 */
export const TRANSITIONS: Readonly<Record<AgentState, Partial<Record<AgentEvent, AgentState>>>> = {
  pending: {
    rest: "stopped",
    launched: "starting",
    ready: "running",
    again: "pending",
    later: "backoff",
    done: "exited",
    give_up: "failed",
  },
  starting: {
    ready: "running",
    end: "stopping",
    rest: "stopped",
    again: "pending",
    later: "backoff",
    done: "exited",
    give_up: "failed",
  },
  running: {
    end: "stopping",
    rest: "stopped",
    again: "pending",
    later: "backoff",
    done: "exited",
    give_up: "failed",
  },
  stopping: { rest: "stopped", again: "pending", later: "backoff", done: "exited", give_up: "failed" },
  backoff: { due: "pending", start: "pending", rest: "stopped" },
  stopped: { start: "pending" },
  exited: { start: "pending" },
  failed: { start: "pending" },
};

/** Where an event leads, or `undefined` when it has no meaning in that state. */
export function transition(from: AgentState, event: AgentEvent): AgentState | undefined {
  return TRANSITIONS[from][event];
}

/** States in which a process exists. */
export function isLive(state: AgentState): boolean {
  return state === "starting" || state === "running" || state === "stopping";
}

/** States that it does not leave by itself. */
export function isEnded(state: AgentState): boolean {
  return ENDED_STATES.includes(state);
}

/** What a restart decision means to the state machine. */
export function eventOf(decision: RestartDecision): AgentEvent {
  if (decision.action === "exit") return "done";
  if (decision.action === "fail") return "give_up";
  return decision.delayMs > 0 ? "later" : "again";
}

/** How a run ended, in words. */
export function describeStatus(status: ExitStatus): string {
  switch (status.kind) {
    case "exited":
      return `exited with code ${status.code}`;
    case "signaled":
      return `was killed by ${status.signal}${status.raw_status === undefined ? "" : ` (status ${status.raw_status})`}`;
    case "spawn_failed":
      return `could not be started: ${status.error.detail}`;
    case "lost":
      return "is gone, and nobody could see how it ended";
  }
}

/** Ends that somebody asked for are no failures, whatever the status. */
const ASKED_FOR: readonly Exit["cause"][] = ["stop_request", "restart", "parent_exit", "daemon_stop"];

export function isSuccess(
  status: ExitStatus,
  cause: Exit["cause"],
  successCodes: readonly number[],
): boolean {
  if (ASKED_FOR.includes(cause)) return true;
  return cause === "self" && status.kind === "exited" && successCodes.includes(status.code);
}
