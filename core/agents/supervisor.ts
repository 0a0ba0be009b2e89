import { type Agent, isService, type Resources } from "../contracts/agent.js";
import type { CreateAgent, Intent } from "../contracts/agent-control.js";
import type { Config, ConfigAgent } from "../contracts/config.js";
import { OpenStarryError, toOpenStarryError } from "../contracts/errors.js";
import type { EventData, EventType, NewEvent } from "../contracts/events.js";
import type { ResourceSample } from "../contracts/hooks.js";
import { type JournalBatch, journal } from "../contracts/journal.js";
import { restartPolicy } from "../contracts/restart-policy.js";
import type { StoredAgent } from "../contracts/stored-agent.js";
import { rfc3339 } from "../lib/clock.js";
import { createAwaitedEndpoints } from "./awaited-endpoints.js";
import type { AgentCommands } from "./commands.js";
import { createAgentCommands } from "./commands.js";
import { checkConfigAgents } from "./config-agents.js";
import { createAgentDrafts } from "./drafts.js";
import { createFamilies } from "./families.js";
import { createMasterFirst } from "./master-first.js";
import { createRecovery } from "./recovery.js";
import { createServices, type Services } from "./services.js";
import { isLive } from "./state.js";
import { stopWaves } from "./stop-waves.js";
import type { SupervisorDeps } from "./supervisor-deps.js";
import { createAgentTable } from "./table.js";
import { createWaiters } from "./waiters.js";
import { AgentWorker, type WorkerDeps, type WorkerObserver } from "./worker/worker.js";

export interface StopAllOptions {
  reason: string;
  /** All agents together; what lives longer is killed. */
  budgetMs: number;
  /** Aborted: what still lives is killed. */
  signal?: AbortSignal;
}

export interface Supervisor {
  readonly commands: AgentCommands;
  readonly services: Services;
  /** Reads the journal and takes over what lives. The journal and the spawners are started. */
  load(): Promise<void>;
  /** Brings what is towards what is wanted. All plugins are started. */
  reconcile(options: { fresh: boolean }): Promise<void>;
  /** Adds and removes what the config names; answers what was done, in words. */
  reconfigure(before: Config, after: Config): Promise<string[]>;
  /** Ends all agents, dependents first; resolves when they are over. */
  stopAll(options: StopAllOptions): Promise<void>;
  /** Lets go of the agents without touching them. */
  release(): void;
  /** Looks at everything that waits again. */
  recheck(): void;
  emit<T extends EventType>(type: T, data: EventData[T]): Promise<void>;
  /** The agents whose process lives. */
  live(): Agent[];
  /** Shows figures, by run, on the agents, and takes away those of all other runs. Answers what is shown. */
  showResources(figures: ReadonlyMap<string, Resources>): ResourceSample[];
}

/** What was killed may take so long to be gone; then the daemon's stop goes on without it. */
const KILL_PATIENCE_MS = 10_000;

/** Keeps the table of agents, each with its worker, and brings the parts together. */
export function createSupervisor(deps: SupervisorDeps): Supervisor {
  const { clock, log, hooks, slots } = deps;
  const table = createAgentTable();
  const { workers } = table;
  const families = createFamilies(table, log);
  const drafts = createAgentDrafts(deps);
  const waiters = createWaiters(clock, (id) => workers.get(id));
  const masterFirst = createMasterFirst(clock, (id) => workers.get(id)?.stored);
  const now = () => rfc3339(clock.now());
  /** Those that wait in `pending` for something. */
  const waiting = new Set<AgentWorker>();

  const awaited = createAwaitedEndpoints({
    clock,
    endpoints: deps.endpoints,
    isAnybodyWaiting: () => waiting.size > 0,
    usable() {
      for (const worker of waiting) worker.poke();
    },
  });

  async function write(batch: JournalBatch): Promise<void> {
    try {
      deps.publish(await slots.use(journal).append(batch));
      deps.problem("journal", undefined);
    } catch (error) {
      const problem = toOpenStarryError(error);
      deps.problem("journal", problem.message);
      throw problem.code === "journal_unavailable"
        ? problem
        : new OpenStarryError("journal_unavailable", {
            detail: "the journal could not be written",
            hint: "look into the daemon's log; free disk space if there is none, then try again",
            cause: error,
          });
    }
  }

  const workerDeps: WorkerDeps & WorkerObserver = {
    clock,
    log,
    hooks,
    write,
    spawner: drafts.spawner,
    policy: () => slots.use(restartPolicy),
    prepare: drafts.prepare,
    limits: drafts.limits,
    requestRequired: ({ template }) => awaited.want(template.template.requires),
    blocker,
    changed(worker) {
      waiters.look(worker);
      if (!table.closed) families.over(worker);
      // What they wait for may have come about.
      for (const other of waiting) if (other !== worker) other.poke();
    },
    idle(worker) {
      if (worker.waiting) waiting.add(worker);
      else waiting.delete(worker);
      waiters.look(worker);
    },
    gone(worker) {
      waiting.delete(worker);
      table.remove(worker);
      waiters.gone(worker);
      families.gone(worker.stored.agent);
    },
  };

  function blocker(stored: StoredAgent): string | undefined {
    for (const need of stored.template.template.requires) {
      if (need.startsWith("agent:")) {
        const other = workers.get(need.slice("agent:".length))?.stored.agent;
        if (!other) return `waits for ${need}, which does not exist`;
        if (other.state !== "running") return `waits for ${need}, which is ${other.state}`;
        continue;
      }
      const endpoint = deps.endpoints().find(({ name }) => name === need);
      const problem = endpoint ? endpoint.health() : "no plugin provides it";
      if (problem !== undefined) return `waits for ${need}: ${problem}`;
    }
    return isService(stored.agent) ? undefined : masterFirst.blocker(stored.agent.agent_id);
  }

  async function create(spec: CreateAgent, intent: Intent, origin: StoredAgent["origin"]): Promise<Agent> {
    const stored = await drafts.draft(spec, origin);
    const { agent } = stored;
    const { secrets } = slots.use(journal);
    const hasValues = Object.keys(spec.env ?? {}).length > 0;
    // Also where there are none: values of an earlier agent of its id, whose record was lost, are not its.
    // A service has none of its own.
    if (!isService(agent)) await secrets.set(agent.agent_id, spec.env ?? {});
    let worker: AgentWorker | undefined;
    try {
      // Asked again: a stop may have begun, or another child been made, while it was being drafted.
      if (table.closed) throw new OpenStarryError("daemon_stopping", { detail: "the daemon is stopping" });
      families.refuseTooMany(agent);
      // Enough to tell later, when the agent is gone, what it was and below whom.
      const data = { template_id: agent.template_id, parent_id: agent.parent_id, ...intent };
      const written = write({
        put: [stored],
        events: [{ type: "agent.created", at: now(), agent_id: agent.agent_id, data }],
        ...(spec.memo ? { memos: [spec.memo] } : {}),
      });
      worker = new AgentWorker(stored, workerDeps, written);
      table.add(worker);
      worker.resume();
      await written;
      return worker.stored.agent;
    } catch (error) {
      if (worker) withdraw(worker);
      if (hasValues) await secrets.set(agent.agent_id, {});
      throw error;
    }
  }

  /** Of an agent whose record could not be written: its process, if there is one, was not let go. */
  function withdraw(worker: AgentWorker) {
    worker.noMoreStarts();
    worker.dispose();
    table.remove(worker);
  }

  const commands = createAgentCommands({
    clock,
    config: deps.config,
    publish: deps.publish,
    table,
    drafts,
    waiters,
    problem: deps.problem,
    slots,
    write,
    create: (spec, intent) => table.reserve(spec.agent_id, () => create(spec, intent, "request")),
  });

  const services = createServices({
    table,
    drafts,
    create: (spec, intent) => create(spec, intent, "service"),
    wait: waiters.wait,
  });

  const recovery = createRecovery({
    ...deps,
    table,
    drafts,
    masterFirst,
    families,
    worker: (stored) => new AgentWorker(stored, workerDeps),
    create: (spec, intent) => create(spec, intent, "config"),
    emit,
  });

  async function reconfigure(before: Config, after: Config): Promise<string[]> {
    await deps.templates.reload();
    const applied: string[] = [];
    const intent = { actor: "operator", reason: "the config was reloaded" };
    const isKnown = (id: string) => workers.has(id) || table.isQuarantined(id);
    const check = (wanted: ConfigAgent) => drafts.draft(wanted, "config");
    await checkConfigAgents({ agents: after.agents, file: deps.configFile, isKnown, check });
    for (const wanted of after.agents) {
      if (isKnown(wanted.agent_id)) continue;
      await table.reserve(wanted.agent_id, () => create(wanted, intent, "config"));
      applied.push(`agent ${wanted.agent_id} was added`);
    }
    for (const { agent_id } of before.agents) {
      if (after.agents.some((agent) => agent.agent_id === agent_id) || !workers.has(agent_id)) continue;
      await commands.control.stop(agent_id, { ...intent, reason: "it is no longer in the config" });
      applied.push(`agent ${agent_id} is stopped: it is no longer in the config`);
    }
    return applied;
  }

  async function stopAll(options: StopAllOptions): Promise<void> {
    table.close();
    awaited.dispose();
    const ending = { cause: "daemon_stop", actor: "daemon", reason: options.reason } as const;
    const all = [...workers.values()];
    for (const worker of all) if (!isLive(worker.stored.agent.state)) worker.noMoreStarts();
    // Whoever takes longer than the budget, or than the one who asked is ready to wait, is killed.
    let graceMs: number | undefined;
    const hurry = () => {
      graceMs = 0;
      for (const worker of all) if (worker.stored.ending) worker.noMoreStarts(ending, 0);
    };
    const end = clock.monotonic() + options.budgetMs;
    const cancelBudget = clock.after(options.budgetMs, hurry);
    options.signal?.addEventListener("abort", hurry, { once: true });
    if (options.signal?.aborted) hurry();
    const live = all.filter(({ stored: { agent } }) => isLive(agent.state) || agent.state === "pending");
    for (const wave of stopWaves(live.map(({ stored }) => stored))) {
      const inWave = wave.flatMap((id) => workers.get(id) ?? []);
      for (const worker of inWave) worker.noMoreStarts(ending, graceMs);
      await Promise.all(inWave.map((worker) => awaitOver(worker, Math.max(0, end - clock.monotonic()))));
    }
    cancelBudget();
  }

  /** Names the one that does not end: it hangs in the operating system. */
  async function awaitOver(worker: AgentWorker, budgetMs: number): Promise<void> {
    await waiters.wait(worker, "over", { timeoutMs: budgetMs + KILL_PATIENCE_MS }).catch((error) => {
      log.error({ agent_id: worker.stored.agent.agent_id, err: error }, "an agent could not be ended");
    });
  }

  function release() {
    table.close();
    awaited.dispose();
    for (const worker of workers.values()) {
      worker.noMoreStarts();
      worker.dispose();
    }
  }

  async function emit<T extends EventType>(type: T, data: EventData[T]): Promise<void> {
    await write({ events: [{ type, at: now(), data } as NewEvent] });
  }

  function showResources(figures: ReadonlyMap<string, Resources>): ResourceSample[] {
    const samples: ResourceSample[] = [];
    for (const worker of workers.values()) {
      const { agent_id, run_id = "", resources: before, state } = worker.stored.agent;
      const resources = isLive(state) ? figures.get(run_id) : undefined;
      if (resources ?? before) void worker.observe({ resources });
      if (resources) samples.push({ agent_id, run_id, ...resources });
    }
    return samples;
  }

  function recheck() {
    for (const worker of workers.values()) worker.poke();
  }

  return {
    commands,
    load: recovery.load,
    services,
    async reconcile(options) {
      await services.removeUnclaimed();
      await recovery.reconcile(options);
      table.open();
    },
    reconfigure,
    stopAll,
    release,
    recheck,
    emit,
    live: () => commands.agents.list().filter(({ state }) => isLive(state)),
    showResources,
  };
}
