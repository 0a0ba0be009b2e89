import type { Agent } from "../contracts/agent.js";
import type { AgentControl, ForRun, Intent } from "../contracts/agent-control.js";
import { OpenStarryError } from "../contracts/errors.js";
import { spawner } from "../contracts/spawner.js";
import type { Ending } from "../contracts/stored-agent.js";
import { rfc3339 } from "../lib/clock.js";
import type { AgentsContext } from "./context.js";
import { requireAdmission } from "./gates.js";
import { isEnded, isLive } from "./state.js";
import type { AgentWorker } from "./worker/worker.js";

/** `ctx.control`: each method changes what is desired and journals it; the agent's worker acts on it. */
export function createAgentControl(context: AgentsContext): AgentControl {
  const { table } = context;
  return {
    create: (spec, intent) => table.reserve(spec.agent_id, () => context.create(spec, intent, "request")),
    start: (agentId, { actor }) => start(context, agentId, actor),
    restart: (agentId, intent) => restart(context, agentId, intent),
    async stop(agentId, intent) {
      const worker = await table.changeable(agentId);
      return isStale(worker, intent) ? worker.stored.agent : stop(worker, intent, {});
    },
    async remove(agentId, intent) {
      await table.opened;
      return stop(table.need(agentId), intent, { deleting: true });
    },
    discard: (agentId, intent) => discard(context, agentId, intent),
    async signal(agentId, name, intent) {
      const worker = table.need(agentId);
      if (!isStale(worker, intent)) await worker.signal(name);
    },
    throttle: async (agentId, percent, intent) => throttle(table.need(agentId), percent, intent),
    async reparent(agentId, parent_id) {
      await table.need(agentId).setDesired({}, { agent: { parent_id } });
    },
    async hold(agentId, { actor, reason }) {
      await (await table.changeable(agentId)).setDesired({ held: { by: actor, reason } });
    },
    async release(agentId) {
      await (await table.changeable(agentId)).setDesired({ held: undefined });
    },
  };
}

/** True when the command is about a run that is over by now. */
function isStale({ stored }: AgentWorker, { run_id }: ForRun): boolean {
  return run_id !== undefined && run_id !== stored.agent.run_id;
}

/** Starts an agent anew. With an `ending` its live run is ended first. */
async function start(
  context: AgentsContext,
  agentId: string,
  actor: string,
  ending?: Ending,
): Promise<Agent> {
  const { table, drafts, slots } = context;
  const worker = await table.changeable(agentId);
  const { state } = worker.stored.agent;
  if (!isEnded(state) && state !== "backoff" && !ending) {
    // A start of what runs changes nothing; of what is being stopped, it comes after the end.
    await worker.setDesired({}, { agent: { desired: "running" } });
    return worker.stored.agent;
  }
  const pins = await drafts.repin(worker.stored);
  if (isEnded(worker.stored.agent.state))
    requireAdmission(slots, worker.stored.agent, { kind: "start", actor });
  if (ending && isLive(worker.stored.agent.state)) await announceEnd(context, worker, ending);
  const revision = pins ? { template_revision: pins.template.revision } : {};
  await worker.setDesired(
    {
      ...pins,
      restart_memory: undefined,
      ending: isLive(worker.stored.agent.state) ? ending : undefined,
    },
    {
      agent: { desired: "running", reason: undefined, next_start_at: undefined, ...revision },
      event: "start",
    },
  );
  return worker.stored.agent;
}

/**
 * Makes an end that a start is to follow durable before it begins: a daemon that comes after a crash must not take it
 * for the agent's own. Rejects with `journal_unavailable`, and nothing is ended: the start could not follow.
 */
async function announceEnd(
  { table, write }: AgentsContext,
  worker: AgentWorker,
  ending: Ending,
): Promise<void> {
  const { agent_id } = worker.stored.agent;
  await write({ put: [{ ...worker.stored, ending }] });
  if ((await table.changeable(agent_id)) === worker) return;
  throw new OpenStarryError("agent_not_found", { detail: `agent "${agent_id}" was deleted meanwhile` });
}

/** With the cause `policy` the run has failed, and its restart rules decide what follows; else it is replaced. */
async function restart(
  context: AgentsContext,
  agentId: string,
  intent: Parameters<AgentControl["restart"]>[1],
): Promise<Agent> {
  const worker = await context.table.changeable(agentId);
  const { cause = "restart", actor, reason, uncounted } = intent;
  if (isStale(worker, intent)) return worker.stored.agent;
  if (cause !== "policy") return start(context, agentId, actor, { cause, actor, reason });
  const { agent, ending: earlier } = worker.stored;
  // What ends already is left to that.
  if (isLive(agent.state) && agent.desired === "running" && !earlier)
    await worker.setDesired({ ending: { cause, actor, reason, ...(uncounted ? { uncounted } : {}) } });
  return worker.stored.agent;
}

async function stop(
  worker: AgentWorker,
  { cause = "stop_request", actor, reason, graceMs }: Intent & { graceMs?: number },
  more: { deleting?: boolean },
): Promise<Agent> {
  const { state } = worker.stored.agent;
  const hasRunOrStart = isLive(state) || state === "pending";
  const waits = state === "pending" || state === "backoff";
  await worker.setDesired(
    { ...(hasRunOrStart ? { ending: { cause, actor, reason } } : {}), ...more },
    { agent: { desired: "stopped", ...(waits ? { reason } : {}) }, graceMs },
  );
  return worker.stored.agent;
}

async function discard(
  { table, slots, clock, write, problem }: AgentsContext,
  agentId: string,
  { actor, reason }: Intent,
): Promise<void> {
  await table.opened;
  if (!table.isQuarantined(agentId)) return;
  for (const it of slots.use(spawner).values()) {
    const survivors = (await it.discard?.(agentId))?.survivors ?? [];
    if (survivors.length > 0) {
      const names = survivors.map(({ pid, name }) => `${name} (${pid})`).join(", ");
      throw new OpenStarryError("tree_survived", {
        detail: `these processes of ${agentId} could not be killed: ${names}`,
        hint: "they are uninterruptible or owned by another user; try again when they are gone",
        data: { survivors },
      });
    }
    await it.forget?.(agentId);
  }
  const at = rfc3339(clock.now());
  await write({
    forget: [agentId],
    events: [{ type: "agent.deleted", at, agent_id: agentId, data: { actor, reason } }],
  });
  table.discard(agentId);
  problem(`agent:${agentId}`, undefined);
}

async function throttle(
  worker: AgentWorker,
  percent: number | undefined,
  intent: Intent & ForRun,
): Promise<Agent> {
  if (percent !== undefined && !(percent > 0 && Number.isFinite(percent))) {
    throw new OpenStarryError("input_invalid", {
      detail: `percent: ${percent} is not a share of one core; expected a number above 0`,
    });
  }
  if (!isStale(worker, intent)) await worker.throttle(percent, intent);
  return worker.stored.agent;
}
