import type { Agent } from "../contracts/agent.js";
import type { AgentControl, CreateAgent, Intent } from "../contracts/agent-control.js";
import type { AgentLookup } from "../contracts/agent-lookup.js";
import type { AgentReports } from "../contracts/agent-reports.js";
import { OpenStarryError } from "../contracts/errors.js";
import { type Journal, journal as journalSlot } from "../contracts/journal.js";
import type { JournalAccess } from "../contracts/journal-access.js";
import { spawner } from "../contracts/spawner.js";
import type { Ending, StoredAgent } from "../contracts/stored-agent.js";
import { rfc3339 } from "../lib/clock.js";
import type { AgentDrafts } from "./drafts.js";
import { addUsage, ancestorsOf, risen } from "./spending.js";
import { isEnded, isLive } from "./state.js";
import type { SupervisorDeps } from "./supervisor-deps.js";
import type { AgentTable } from "./table.js";
import type { Waiters } from "./waiters.js";
import type { AgentWorker } from "./worker/worker.js";

export interface CommandDeps
  extends Pick<SupervisorDeps, "clock" | "config" | "publish" | "problem" | "slots"> {
  table: AgentTable;
  drafts: AgentDrafts;
  waiters: Waiters;
  write: (batch: Parameters<Journal["append"]>[0]) => Promise<void>;
  create: (spec: CreateAgent, intent: Intent) => Promise<Agent>;
}

/** The kernel's verbs: each changes what is wanted, journals it, and leaves the rest to the worker. */
export interface AgentCommands {
  readonly agents: AgentLookup;
  readonly control: AgentControl;
  readonly reports: AgentReports;
  readonly journal: JournalAccess;
}

export function createAgentCommands(deps: CommandDeps): AgentCommands {
  const { table, drafts, waiters, slots } = deps;
  const journal = () => slots.use(journalSlot);
  const { need, changeable } = table;
  /** Whose own words are newer than the journal's. */
  const unwritten = new WeakSet<AgentWorker>();

  async function startAgent(agentId: string, cause?: Ending | undefined): Promise<Agent> {
    const worker = await changeable(agentId);
    const idle = (state = worker.stored.agent.state) => isEnded(state) || state === "backoff";
    if (!idle() && !cause) {
      // A start of what runs changes nothing; of what is being stopped, it comes after the end.
      await worker.setDesired({}, { agent: { desired: "running" } });
      return worker.stored.agent;
    }
    const pins = await drafts.repin(worker.stored);
    if (cause && isLive(worker.stored.agent.state)) await announceEnd(worker, cause);
    const agent: Partial<Agent> = {
      desired: "running",
      reason: undefined,
      next_start_at: undefined,
      ...(pins ? { template_revision: pins.template.revision } : {}),
    };
    const ending = isLive(worker.stored.agent.state) ? cause : undefined;
    await worker.setDesired({ ...pins, restart_memory: undefined, ending }, { agent, event: "start" });
    return worker.stored.agent;
  }

  /** Its restart rules decide what follows. What ends already is left to that. */
  async function failRun(worker: AgentWorker, ending: Ending): Promise<Agent> {
    const { agent, ending: before } = worker.stored;
    if (isLive(agent.state) && agent.desired === "running" && !before) await worker.setDesired({ ending });
    return worker.stored.agent;
  }

  /**
   * An end that a start is to follow is durable before it begins: a daemon that comes after a crash must
   * not take it for the agent's own. Rejects with `journal_unavailable`, and nothing is ended: the start
   * could not follow.
   */
  async function announceEnd(worker: AgentWorker, ending: Ending): Promise<void> {
    const { agent_id } = worker.stored.agent;
    await deps.write({ put: [{ ...worker.stored, ending }] });
    if ((await changeable(agent_id)) === worker) return;
    throw new OpenStarryError("agent_not_found", { detail: `agent "${agent_id}" was deleted meanwhile` });
  }

  /** True when the command is about a run that is over by now. */
  function isStale(worker: AgentWorker, { run_id }: { run_id?: string }): boolean {
    return run_id !== undefined && run_id !== worker.stored.agent.run_id;
  }

  function endingBy(
    { cause = "stop_request", actor, reason }: Intent,
    { stored }: AgentWorker,
  ): Partial<StoredAgent> {
    const { state } = stored.agent;
    return isLive(state) || state === "pending" ? { ending: { cause, actor, reason } } : {};
  }

  async function stopAgent(
    worker: AgentWorker,
    intent: Intent & { graceMs?: number },
    deleting: boolean,
  ): Promise<Agent> {
    const { state } = worker.stored.agent;
    const waits = state === "pending" || state === "backoff";
    await worker.setDesired(
      { ...endingBy(intent, worker), ...(deleting ? { deleting } : {}) },
      {
        agent: { desired: "stopped", ...(waits ? { reason: intent.reason } : {}) },
        ...(intent.graceMs === undefined ? {} : { graceMs: intent.graceMs }),
      },
    );
    return worker.stored.agent;
  }

  async function discardAgent(agentId: string): Promise<void> {
    for (const it of slots.use(spawner).values()) {
      const survivors = (await it.discard?.(agentId))?.survivors ?? [];
      if (survivors.length > 0) {
        const names = survivors.map(({ pid, name }) => `${name} (${pid})`).join(", ");
        throw new OpenStarryError("tree_survived", {
          detail: `these of ${agentId} could not be ended: ${names}`,
          hint: "they hang in the operating system; ask again when they are gone",
          data: { survivors },
        });
      }
      await it.forget?.(agentId);
    }
  }

  const agents: AgentLookup = {
    get: (agentId) => table.workers.get(agentId)?.stored.agent,
    list: () => [...table.workers.values()].map((worker) => worker.stored.agent),
    master: () => table.workers.get(deps.config().agents[0]?.agent_id ?? "")?.stored.agent,
    byRun(runId) {
      for (const { stored } of table.workers.values()) {
        const { run_id, pid, state } = stored.agent;
        if (run_id === runId && pid !== undefined && isLive(state)) return stored.agent;
      }
      return undefined;
    },
    details(agentId) {
      const worker = table.workers.get(agentId);
      return worker && { stored: worker.stored, survivors: worker.survivors };
    },
    template: (agentId) => table.workers.get(agentId)?.stored.template,
    async check(spec) {
      if (spec.agent_id !== undefined) table.refuseTaken(spec.agent_id);
      return (await drafts.draft(spec, "request")).agent;
    },
    quarantined: (agentId) => table.quarantined.get(agentId),
    wait: async (agentId, condition, options) => waiters.wait(need(agentId), condition, options),
  };
  const control: AgentControl = {
    create: deps.create,
    start: (agentId) => startAgent(agentId),
    async stop(agentId, intent) {
      const worker = await changeable(agentId);
      return isStale(worker, intent) ? worker.stored.agent : stopAgent(worker, intent, false);
    },
    async restart(agentId, intent) {
      const worker = await changeable(agentId);
      const { cause = "restart", actor, reason, uncounted = false } = intent;
      if (isStale(worker, intent)) return worker.stored.agent;
      if (cause === "policy")
        return failRun(worker, { cause, actor, reason, ...(uncounted ? { uncounted } : {}) });
      return startAgent(agentId, { cause, actor, reason });
    },
    async remove(agentId, intent) {
      await table.opened;
      return stopAgent(need(agentId), intent, true);
    },
    async discard(agentId, { actor, reason }) {
      await table.opened;
      if (!table.isQuarantined(agentId)) return;
      await discardAgent(agentId);
      const data = { actor, reason };
      const deleted = {
        type: "agent.deleted" as const,
        at: rfc3339(deps.clock.now()),
        agent_id: agentId,
        data,
      };
      await deps.write({ forget: [agentId], events: [deleted] });
      table.discard(agentId);
      deps.problem(`agent:${agentId}`, undefined);
    },
    async signal(agentId, name, intent) {
      const worker = need(agentId);
      if (!isStale(worker, intent)) await worker.signal(name);
    },
    async throttle(agentId, percent, intent) {
      const worker = need(agentId);
      if (percent !== undefined && !(percent > 0 && Number.isFinite(percent))) {
        throw new OpenStarryError("input_invalid", {
          detail: `percent: ${percent} is not a share of one core; expected a number above 0`,
        });
      }
      if (!isStale(worker, intent)) await worker.throttle(percent, intent);
      return worker.stored.agent;
    },
    async hold(agentId, { actor, reason }) {
      await (await changeable(agentId)).setDesired({ held: { by: actor, reason } });
    },
    async release(agentId) {
      await (await changeable(agentId)).setDesired({ held: undefined });
    },
  };
  const reports: AgentReports = {
    ready: (agentId, runId) => need(agentId).reportReady(runId),
    starting: (agentId, runId, note) => need(agentId).reportStarting(runId, note),
    health: (agentId, runId, health, reason) => need(agentId).reportHealth(runId, health, reason),
    limit: (agentId, runId, report) => need(agentId).reportLimit(runId, report),
    progress: (agentId, runId, step, reason) => need(agentId).reportProgress(runId, step, reason),
    async heartbeat(agentId, run_id, { usage: said, ...signs }, { later = false } = {}) {
      const worker = need(agentId);
      const { agent } = worker.stored;
      if (agent.run_id !== run_id || !isLive(agent.state)) {
        throw new OpenStarryError("run_is_over", {
          detail: `run ${run_id} of ${agentId} is over`,
          hint: "this process should end: the daemon does not count it as the agent any more",
        });
      }
      const usage = said && risen(agent.usage, said);
      const report = { ...signs, ...(usage ? { usage: usage.total } : {}) };
      const beat = {
        type: "agent.heartbeat" as const,
        at: rfc3339(deps.clock.now()),
        agent_id: agentId,
        run_id,
        data: { ...report },
      };
      const news = Object.entries(report).some(([key, value]) => !same(agent[key as keyof Agent], value));
      if (news && later && !usage) {
        unwritten.add(worker);
        await worker.observe(signs);
        deps.publish([{ ...beat, id: journal().lastEventId() }]);
      } else if (news || (!later && unwritten.has(worker))) {
        unwritten.delete(worker);
        const above = usage ? ancestorsOf(worker, table.workers) : [];
        const spending = (it: AgentWorker) =>
          usage ? { spent: addUsage(it.stored.agent.spent, usage.by) } : {};
        for (const ancestor of above) void ancestor.observe(spending(ancestor));
        await worker.observe({ ...report, ...spending(worker) }, beat, above);
      }
      // One like the last is no history: only those who listen now are told.
      else deps.publish([{ ...beat, id: journal().lastEventId() }]);
    },
  };
  const journalAccess: JournalAccess = {
    runs: (agentId, limit) => journal().runs(agentId, limit),
    events: (query) => journal().events(query),
    lastEventId: () => journal().lastEventId(),
    memo: (key) => journal().memo(key),
    putMemo: (memo) => deps.write({ memos: [memo] }),
  };
  return { agents, control, reports, journal: journalAccess };
}

/** Of two JSON values. */
function same(left: unknown, right: unknown): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}
