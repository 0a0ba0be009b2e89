import type { RunHandle, Survivor } from "../../contracts/spawner.js";
import type { Ending } from "../../contracts/stored-agent.js";
import { isLive } from "../state.js";
import { move, quietly, RETRY_MS, show, type WorkerContext } from "./context.js";

/** Asks the spawner to end the live run. A stop that is under way is only asked for again with a shorter grace. */
export function stopRun(context: WorkerContext, handle: RunHandle): void {
  const { state, deps, timers, id } = context;
  const { agent, template } = state.stored;
  const { signal, graceMs: usual } = template.template.stop;
  const graceMs = state.graceMs ?? usual;
  const isAsked = agent.state === "stopping" && state.stopAsked?.handle === handle;
  if (isAsked && (state.stopAsked?.graceMs ?? 0) <= graceMs) return;
  state.stopAsked = { handle, graceMs };
  timers.stopWaitingForReady();
  if (agent.state !== "stopping") {
    // A kill never waits for the journal.
    void quietly(move(context, "end", { reason: state.stored.ending?.reason ?? "asked to stop" }));
  }
  handle.stop({ signal, graceMs }).then(
    ({ survivors }) => {
      if (handle === state.handle && survivors.length > 0) showSurvivors(context, survivors);
    },
    (error: unknown) => {
      deps.log.error({ agent_id: id, err: error }, "a spawner could not stop a run; retrying");
      state.stopAsked = undefined;
      timers.retry(RETRY_MS, context.poke);
    },
  );
}

function showSurvivors(context: WorkerContext, survivors: Survivor[]): void {
  const { state, deps, id } = context;
  state.survivors = survivors;
  const names = survivors.map(({ pid, name }) => `${name} (${pid})`).join(", ");
  show(context, { reason: `these processes could not be killed: ${names}` });
  deps.log.error({ agent_id: id, survivors }, "processes survived SIGKILL");
  context.changed();
}

/** Ends a live run for a reason of the daemon's own; what is desired stays. The first reason counts. */
export function endRun(
  context: Pick<WorkerContext, "state" | "poke">,
  runId: string,
  ending: Ending,
  graceMs?: number,
): void {
  const { state } = context;
  const { agent, ending: earlier } = state.stored;
  if (agent.run_id !== runId || !isLive(agent.state) || earlier) return;
  state.stored = { ...state.stored, ending };
  if (graceMs !== undefined) state.graceMs = graceMs;
  context.poke();
}
