import type { Agent, Exit, RunRecord } from "../../contracts/agent.js";
import type { RunOutcome } from "../../contracts/spawner.js";
import { rfc3339 } from "../../lib/clock.js";
import { eventOf, move, quietly, type WorkerContext } from "./context.js";
import { describeExit, whatFollows } from "./run-end.js";

/** What of a run is no longer so when it is over. */
const OVER: Partial<Agent> = {
  pid: undefined,
  containment: undefined,
  throttle: undefined,
  ready_at: undefined,
  resources: undefined,
  status: undefined,
  progress: undefined,
  health: "unknown",
};

/** Records how a run ended, or that a start failed, and what follows. True: there may be more to do. */
export async function settle(context: WorkerContext, outcome: RunOutcome): Promise<boolean> {
  const { state, deps, id } = context;
  const nowMs = deps.clock.now();
  const ending = state.stored.ending ?? state.interrupted;
  const exit = describeExit(ending ? { ...state.stored, ending } : state.stored, outcome, nowMs);
  const { result } = outcome;
  const run: RunRecord = {
    run_id: exit.run_id ?? "",
    agent_id: id,
    exit,
    ...(result === undefined ? {} : { result }),
  };
  // All that may throw comes first: what is dead must not stay "running".
  const next = whatFollows(state.stored, exit, deps.policy, {
    nowMs,
    uptimeMs: uptimeOf(context, exit),
    daemonStops: state.noMoreStarts,
  });
  state.outcome = undefined;
  state.handle = undefined;
  state.stopAsked = undefined;
  state.survivors = [];
  state.graceMs = undefined;
  state.stored = {
    ...state.stored,
    target: undefined,
    ending: undefined,
    restart_memory: next.memory,
    ...(deps.hooks.afterExit.isUsed() ? { unreported: run } : {}),
  };
  const patch: Partial<Agent> = {
    ...OVER,
    last_exit: exit,
    restarts: state.stored.agent.restarts + (next.counted ? 1 : 0),
    reason: next.reason,
    next_start_at: next.delayMs > 0 ? rfc3339(nowMs + next.delayMs) : undefined,
  };
  const exited = eventOf(context, "agent.exited", { ...exit });
  await quietly(move(context, next.event, patch, { runs: [run], events: [exited] }));
  return true;
}

function uptimeOf({ state, deps }: WorkerContext, exit: Exit): number {
  if (exit.kind === "spawn_failed") return 0;
  if (state.startedAtMs !== undefined) return deps.clock.monotonic() - state.startedAtMs;
  return Math.max(0, Date.parse(exit.ended_at) - Date.parse(exit.started_at ?? exit.ended_at));
}
