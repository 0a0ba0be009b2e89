import { eventOf, type WorkerContext } from "./context.js";

/** Removes what the agent left, then its record. Rejects with `journal_unavailable`; then it is tried again. */
export async function forget(context: WorkerContext): Promise<void> {
  const { state, deps, hookQueue, timers, id } = context;
  await hookQueue.done();
  try {
    // First: what it printed must not be found under its name by a later agent.
    await deps.spawner(state.stored.agent.spawner).forget?.(id);
  } catch (error) {
    deps.log.error({ agent_id: id, err: error }, "could not remove everything that a deleted agent left");
  }
  await deps.write({ forget: [id], events: [eventOf(context, "agent.deleted", {})] });
  timers.dispose();
  context.gone();
}
