import { type Agent, OpenStarryError } from "../../core/index.js";

/** Answers that say "it will be done", not "it is done". */
const accepted = new WeakSet<object>();

/** An answer of its own that is sent with status 202. */
export function asAccepted<T extends object>(answer: T): T {
  const copy = { ...answer };
  accepted.add(copy);
  return copy;
}

export function statusOf(answer: object): number {
  return accepted.has(answer) ? 202 : 200;
}

/**
 * Why an agent that was to start has not, where that is final. The record stays, so that what happened
 * can be looked at.
 */
export function launchError(agent: Agent): OpenStarryError | undefined {
  const { last_exit: exit, agent_id: id } = agent;
  if (agent.state !== "failed" || exit?.kind !== "spawn_failed") return undefined;
  const vetoed = exit.cause === "policy";
  const why = agent.reason ?? exit.error.detail;
  return new OpenStarryError(vetoed ? "spawn_vetoed" : "spawn_failed", {
    detail: vetoed ? `agent ${id} may not start: ${why}` : `agent ${id} could not be started: ${why}`,
    hint: `its record is kept as failed: once the reason is gone POST /agents/${id}/start, or DELETE /agents/${id}`,
    data: { agent_id: id, ...(vetoed ? {} : { reason_code: exit.error.code }) },
  });
}
