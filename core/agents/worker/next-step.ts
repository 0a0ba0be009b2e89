import type { AgentState, Desired } from "../../contracts/agent.js";
import { isEnded, isLive } from "../state.js";

/** What a worker knows when it decides what to do next. */
export interface WorkerView {
  readonly state: AgentState;
  readonly desired: Desired;
  /** A run is over, and its end is not in the record yet. */
  readonly hasOutcome: boolean;
  /** The plugins have not been told of a finished run yet. */
  readonly hasUnreportedRun: boolean;
  /** This daemon holds the live run. */
  readonly hasHandle: boolean;
  /** The run is to end, whatever is desired: a restart, a failed probe, a policy. */
  readonly isEnding: boolean;
  /** The record is to go. */
  readonly isDeleting: boolean;
  /** The daemon stops: nothing is started any more. */
  readonly noMoreStarts: boolean;
}

export type Step =
  /** Record how the run ended, and what follows. */
  | "settle"
  /** Tell the plugins of a finished run. */
  | "report-exit"
  /** End the live run. */
  | "stop-run"
  /** Remove the record and what the agent left. */
  | "forget"
  /** Become `stopped`: no process, and none desired. */
  | "rest"
  /** Start a run, or say what it waits for. */
  | "launch"
  /** Nothing to do until something changes. */
  | "wait";

/**
 * Decides what an agent's worker does next. Pure. What has happened comes before what is desired: an end is recorded
 * and reported before anything new begins, so that a run never overlaps the one before it.
 */
export function nextStep(view: WorkerView): Step {
  if (view.hasOutcome) return "settle";
  if (view.hasUnreportedRun) return "report-exit";
  if (isLive(view.state)) {
    return view.hasHandle && (view.desired === "stopped" || view.isEnding) ? "stop-run" : "wait";
  }
  if (view.isDeleting) return "forget";
  if (view.desired === "stopped") return isEnded(view.state) ? "wait" : "rest";
  return view.state === "pending" && !view.noMoreStarts ? "launch" : "wait";
}
