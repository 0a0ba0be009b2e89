import type { Agent } from "../../contracts/agent.js";
import { isSpawnDeferred, isSpawnVetoed, toOpenStarryError } from "../../contracts/errors.js";
import type { RunHandle, RunIdentity, RunOutcome } from "../../contracts/spawner.js";
import { rfc3339 } from "../../lib/clock.js";
import { timeOfUuidv7, uuidv7 } from "../../lib/ids.js";
import { heldBy } from "../../template/resources.js";
import { eventOf, move, nowOf, quietly, RETRY_MS, show, type WorkerContext } from "./context.js";
import { queueReady, recordLimit } from "./run-reports.js";
import { settle } from "./settle.js";

/** Thrown at the gate: the start was superseded by another request, and nothing of it is left. */
const SUPERSEDED = Symbol("superseded");

/** Starts a run, unless something has to be waited for. True when there may be more to do. */
export async function launch(context: WorkerContext): Promise<boolean> {
  const { state, deps } = context;
  if (mustWait(context)) return false;
  // Ids sort by age even where the clock was set back: output is kept and shown in their order.
  const runId = uuidv7(Math.max(deps.clock.now(), timeOfUuidv7(state.stored.agent.run_id) + 1));
  const { template } = state.stored;
  state.launching = true;
  try {
    show(context, { spawner: template.template.spawner });
    const spec = await deps.prepare(state.stored, runId);
    const isAsPrepared = () => state.stored.template === template;
    const spawning = deps
      .spawner(state.stored.agent.spawner)
      .spawn(spec, (run) => passGate(context, runId, run, isAsPrepared));
    attach(context, await spawning, { adopted: false });
    return true;
  } catch (error) {
    if (error === SUPERSEDED) return true;
    return await startFailed(context, error, runId);
  } finally {
    state.launching = false;
  }
}

/** True, with the reason shown, when the agent has to wait in `pending`. */
function mustWait(context: WorkerContext): boolean {
  const { state, deps } = context;
  const { stored, deferred } = state;
  // Once for each wait: what it needs may fail, and is not to be started again at each look.
  if (!state.waiting && !stored.held) deps.requestRequired(stored);
  const blocker = stored.held ? `held by ${stored.held.by}: ${stored.held.reason}` : deps.blocker(stored);
  if (blocker !== undefined) {
    setWaiting(context, blocker);
    return true;
  }
  const leftMs = deferred ? deferred.dueMs - deps.clock.monotonic() : 0;
  if (!deferred || leftMs <= 0) return false;
  setWaiting(context, deferred.reason, rfc3339(deps.clock.now() + leftMs));
  return true;
}

function setWaiting(context: WorkerContext, reason: string, next_start_at?: string): void {
  const { state, journal } = context;
  const changed = !state.waiting || state.stored.agent.reason !== reason;
  state.waiting = true;
  show(context, { reason, next_start_at });
  if (!changed) return;
  // A new reason is nothing that others could wait for, so `changed` is not called.
  void quietly(
    journal.write({ events: [eventOf(context, "agent.state", { from: "pending", to: "pending", reason })] }),
  );
}

/** The process is held at its gate. The point of no return: journaled before it may go on. */
async function passGate(
  context: WorkerContext,
  runId: string,
  run: RunIdentity,
  isAsPrepared: () => boolean,
): Promise<void> {
  const { state, deps } = context;
  const isDurable = await newestWrite(context);
  // Requests that came while the process was being made: it has not run yet, and will not.
  const { state: now, desired } = state.stored.agent;
  const isWanted =
    now === "pending" && desired !== "stopped" && !state.stored.deleting && !state.noMoreStarts;
  if (!isDurable || !isWanted || !isAsPrepared()) throw SUPERSEDED;
  const ready = state.stored.template.template.readiness === undefined;
  state.startedAtMs = deps.clock.monotonic();
  state.stored = { ...state.stored, target: run.target, ending: undefined };
  const at = nowOf(context);
  await move(context, ready ? "ready" : "launched", {
    ...NEW_RUN,
    run_id: runId,
    pid: run.pid,
    containment: run.containment,
    limits: heldBy(deps.limits(state.stored), run.held),
    started_at: at,
    ready_at: ready ? at : undefined,
  });
}

/** What the run before has left on the agent. */
const NEW_RUN: Partial<Agent> = {
  throttle: undefined,
  health: "unknown",
  usage: undefined,
  status: undefined,
  progress: undefined,
};

/** Waits for the newest change of what is desired, also for one made meanwhile. True when it is durable. */
async function newestWrite({ state }: WorkerContext): Promise<boolean> {
  let isDurable = true;
  for (let newest: Promise<void> | undefined; newest !== state.pendingWrite; ) {
    newest = state.pendingWrite;
    isDurable = await newest.then(
      () => true,
      () => false,
    );
  }
  return isDurable;
}

/** A live run is this worker's now: just started, or started by an earlier daemon. */
export function attach(context: WorkerContext, handle: RunHandle, { adopted }: { adopted: boolean }): void {
  const { state, deps, hookQueue, id } = context;
  state.handle = handle;
  state.survivors = [];
  state.graceMs = undefined;
  state.interrupted = undefined;
  const { agent } = state.stored;
  const run_id = agent.run_id ?? "";
  hookQueue.add(() => deps.hooks.afterSpawn.promise({ agent, run_id, adopted }));
  if (agent.state === "running" && !adopted) queueReady(context);
  handle.onLimit?.((report) => void quietly(recordLimit(context, run_id, { ...report, actor: "daemon" })));
  const isOver = (outcome: RunOutcome) => {
    state.outcome = outcome;
    context.poke();
  };
  handle.exit.then(isOver, (error: unknown) => {
    deps.log.error(
      { agent_id: id, err: error },
      "a spawner failed to report how a run ended; recorded as lost",
    );
    isOver({ status: { kind: "lost" } });
  });
}

async function startFailed(context: WorkerContext, error: unknown, runId: string): Promise<boolean> {
  const { state, deps, timers, id } = context;
  if (isSpawnDeferred(error)) {
    const { retryAfterMs } = error.data;
    state.deferred = { reason: error.message, dueMs: deps.clock.monotonic() + retryAfterMs };
    setWaiting(context, error.message, rfc3339(deps.clock.now() + retryAfterMs));
    timers.retry(retryAfterMs, context.poke);
    return false;
  }
  const problem = toOpenStarryError(error);
  if (problem.code === "internal") deps.log.error({ agent_id: id, err: error }, "a start failed");
  if (problem.code === "journal_unavailable") {
    const next_start_at = rfc3339(deps.clock.now() + RETRY_MS);
    state.stored = { ...state.stored, target: undefined };
    const reason = "journal_unavailable: the journal cannot be written";
    await quietly(move(context, "later", { reason, next_start_at, pid: undefined }));
    return false;
  }
  const cause = isSpawnVetoed(error) ? "policy" : "self";
  show(context, { run_id: runId, started_at: undefined });
  const failure = { code: problem.code, detail: problem.message };
  return settle(context, { status: { kind: "spawn_failed", error: failure }, cause });
}
