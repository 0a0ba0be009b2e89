import type { Agent, Resources } from "../contracts/agent.js";
import type { AgentReports } from "../contracts/agent-reports.js";
import { OpenStarryError } from "../contracts/errors.js";
import type { NewEvent } from "../contracts/events.js";
import type { ResourceSample } from "../contracts/hooks.js";
import { journal } from "../contracts/journal.js";
import { rfc3339 } from "../lib/clock.js";
import type { AgentsContext } from "./context.js";
import { addUsage, ancestorsOf, risen } from "./spending.js";
import { isLive } from "./state.js";
import type { AgentWorker } from "./worker/worker.js";

/** `ctx.reports`: records what is observed of live runs. */
export function createAgentReports(context: AgentsContext): AgentReports {
  const need = (agentId: string) => context.table.need(agentId);
  /** Workers whose last words are newer than the journal's. */
  const unwritten = new WeakSet<AgentWorker>();
  return {
    ready: (agentId, runId) => need(agentId).reportReady(runId),
    starting: (agentId, runId, note) => need(agentId).reportStarting(runId, note),
    health: (agentId, runId, health, reason) => need(agentId).reportHealth(runId, health, reason),
    limit: (agentId, runId, report) => need(agentId).reportLimit(runId, report),
    progress: (agentId, runId, step, reason) => need(agentId).reportProgress(runId, step, reason),
    resources: (figures) => showResources(context, figures),
    heartbeat: (...call) => heartbeat(context, unwritten, ...call),
  };
}

/** Shows figures on the agents whose run they are of, takes the others away, and fires `onResourceSample`. */
async function showResources(
  { table, hooks }: AgentsContext,
  figures: ReadonlyMap<string, Resources>,
): Promise<void> {
  const samples: ResourceSample[] = [];
  for (const worker of table.workers.values()) {
    const { agent_id, run_id = "", resources: before, state } = worker.stored.agent;
    const resources = isLive(state) ? figures.get(run_id) : undefined;
    if (resources ?? before) void worker.observe({ resources });
    if (resources) samples.push({ agent_id, run_id, ...resources });
  }
  if (samples.length > 0) await hooks.onResourceSample.promise({ samples });
}

async function heartbeat(
  { table, clock, slots, publish }: AgentsContext,
  unwritten: WeakSet<AgentWorker>,
  ...[agentId, run_id, { usage: reported, ...signs }, { later = false } = {}]: Parameters<
    AgentReports["heartbeat"]
  >
): Promise<void> {
  const worker = table.need(agentId);
  const { agent } = worker.stored;
  if (agent.run_id !== run_id || !isLive(agent.state)) {
    throw new OpenStarryError("run_is_over", {
      detail: `run ${run_id} of ${agentId} is over`,
      hint: "exit: the daemon no longer counts this process as the agent",
    });
  }
  const usage = reported && risen(agent.usage, reported);
  const report = { ...signs, ...(usage ? { usage: usage.total } : {}) };
  const beat: NewEvent = {
    type: "agent.heartbeat",
    at: rfc3339(clock.now()),
    agent_id: agentId,
    run_id,
    data: { ...report },
  };
  const tell = () => publish([{ ...beat, id: slots.use(journal).lastEventId() }]);
  const isNew = Object.entries(report).some(([key, value]) => !isSame(agent[key as keyof Agent], value));
  if (isNew && later && !usage) {
    unwritten.add(worker);
    await worker.observe(signs);
    tell();
  } else if (isNew || (!later && unwritten.has(worker))) {
    unwritten.delete(worker);
    const above = usage ? ancestorsOf(worker, table.workers) : [];
    const spending = (it: AgentWorker) => (usage ? { spent: addUsage(it.stored.agent.spent, usage.by) } : {});
    for (const ancestor of above) void ancestor.observe(spending(ancestor));
    await worker.observe({ ...report, ...spending(worker) }, beat, above);
  }
  // One like the last is no history: only those who listen now are told.
  else tell();
}

/** Compares two JSON values. */
function isSame(left: unknown, right: unknown): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}
