import type { RunRecord } from "../../contracts/agent.js";
import { quietly, type WorkerContext } from "./context.js";

/** Fires `afterExit` for a finished run; journaled as done only after every tap has settled. True: there may be more to do. */
export async function reportExit(context: WorkerContext, run: RunRecord): Promise<boolean> {
  const { state, deps, hookQueue, journal } = context;
  const { agent } = state.stored;
  hookQueue.add(() => deps.hooks.afterExit.promise({ agent, run_id: run.run_id, run }));
  await hookQueue.done();
  state.stored = { ...state.stored, unreported: undefined };
  if (!state.stored.deleting) await quietly(journal.write({}));
  return true;
}
