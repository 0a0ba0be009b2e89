import type { AgentCommands, CreateAgent, Intent } from "./agent-commands.js";
import { isEnded, isLive } from "./agent-state.js";
import { type AgentWorker, createAgentWorker, type WorkerDeps } from "./agent-worker.js";
import { type Clock, rfc3339 } from "./clock.js";
import { type Agent, ID_PATTERN } from "./contracts/agent.js";
import { authenticator } from "./contracts/authenticator.js";
import type { DaemonEvent, EventType, NewEvent } from "./contracts/events.js";
import { type Journal, type JournalBatch, journal } from "./contracts/journal.js";
import { restartPolicy } from "./contracts/restart-policy.js";
import { type Spawner, type SpawnSpec, spawner } from "./contracts/spawner.js";
import type { StoredAgent } from "./contracts/stored-agent.js";
import type { PinnedTemplate } from "./contracts/template-source.js";
import type { Config, ConfigAgent } from "./define-config.js";
import { nearest, OpenStarryError, toOpenStarryError } from "./errors.js";
import type { Hooks } from "./hooks.js";
import { shortId } from "./ids.js";
import type { Endpoint, Logger } from "./plugin.js";
import type { SlotRegistry } from "./slots.js";
import { buildSpec, protectSpec } from "./spawn-spec.js";
import { stopWaves } from "./stop-waves.js";
import { parseParams, parseTemplate } from "./template.js";
import { checkProbes, checkRequires } from "./template-checks.js";
import type { Templates } from "./templates.js";
import { createWaiters, type Waiters } from "./waiters.js";

export interface SupervisorDeps {
  clock: Clock;
  log: Logger;
  hooks: Hooks;
  slots: SlotRegistry;
  config: () => Config;
  dataDir: string;
  templates: Templates;
  endpoints: () => readonly Endpoint[];
  /** Every event, in order, once it is durable. */
  publish: (events: readonly DaemonEvent[]) => void;
  /** Something is wrong that no request asked about; `undefined` when it is over. */
  problem: (key: string, text: string | undefined) => void;
}

export interface Supervisor {
  readonly commands: AgentCommands;
  /** Reads the journal and takes over what lives. The journal and the spawners are started. */
  load(): Promise<void>;
  /** Brings what is towards what is wanted. All plugins are started. */
  reconcile(options: { fresh: boolean }): Promise<void>;
  /** Adds and removes what the config names; answers what was done, in words. */
  reconfigure(before: Config, after: Config): Promise<string[]>;
  /** Ends all agents, dependents first; resolves when they are over or the budget is spent. */
  stopAll(options: { reason: string; budgetMs: number; signal?: AbortSignal }): Promise<void>;
  /** Lets go of the agents without touching them. */
  release(): void;
  /** Looks at everything that waits again. */
  recheck(): void;
  emit(type: EventType, data: Record<string, unknown>): Promise<void>;
}

export function createSupervisor(deps: SupervisorDeps): Supervisor {
  const { clock, log, hooks, slots } = deps;
  const workers = new Map<string, AgentWorker>();
  const reserved = new Set<string>();
  const waiters: Waiters = createWaiters(clock, (id) => workers.get(id));
  let open: () => void = () => {};
  /** Changes wait here until the agents of the last daemon are reconciled. */
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  let stopping = false;

  const theJournal = (): Journal => slots.use(journal);
  const now = () => rfc3339(clock.now());

  async function write(batch: JournalBatch): Promise<void> {
    try {
      deps.publish(await theJournal().append(batch));
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

  const workerDeps: WorkerDeps = {
    clock,
    log,
    hooks,
    write,
    spawner: findSpawner,
    policy: () => slots.use(restartPolicy),
    prepare: async (stored, runId) => protect(await draftSpec(stored, runId)),
    blocker,
    changed(worker) {
      waiters.look(worker);
      const { agent } = worker.stored;
      if (!stopping && isEnded(agent.state)) seeToChildren(worker);
      for (const other of workers.values()) if (other.waiting && other !== worker) other.poke();
    },
    idle: (worker) => waiters.look(worker),
    gone(worker) {
      workers.delete(worker.stored.agent.agent_id);
      waiters.gone(worker);
    },
  };

  function findSpawner(name: string): Spawner {
    const known = slots.use(spawner);
    const found = known.get(name);
    if (found) return found;
    throw new OpenStarryError("spawner_not_found", {
      detail: `there is no spawner "${name}"`,
      hint: `known: ${[...known.keys()].join(", ")}; add a plugin that provides it, or change "spawner" in the template`,
    });
  }

  async function draftSpec(stored: StoredAgent, runId: string): Promise<SpawnSpec> {
    const agentId = stored.agent.agent_id;
    const token = slots.has(authenticator) ? slots.use(authenticator).mint({ agentId, runId }) : undefined;
    return buildSpec(stored, runId, {
      dataDir: deps.dataDir,
      defaults: deps.config().defaults,
      endpoints: deps.endpoints(),
      secrets: await theJournal().secrets.get(agentId),
      ...(token === undefined ? {} : { token }),
    });
  }

  async function protect(spec: SpawnSpec): Promise<SpawnSpec> {
    if (!hooks.beforeSpawn.isUsed()) return spec;
    return protectSpec(spec, await hooks.beforeSpawn.promise(spec));
  }

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
    return undefined;
  }

  /** When an agent is over, and not about to restart, its children are ended or handed up. */
  function seeToChildren(worker: AgentWorker) {
    const { agent, template } = worker.stored;
    if (agent.last_exit?.cause === "daemon_stop" && agent.desired === "running") return;
    for (const child of workers.values()) {
      if (child.stored.agent.parent_id !== agent.agent_id || child === worker) continue;
      if (template.template.children?.on_exit === "reparent") {
        const change = child.intend({}, { agent: { parent_id: agent.parent_id } });
        change.catch((error) => log.error({ err: error }, "a child could not be handed up"));
      } else if (child.stored.agent.desired === "running" && !isEnded(child.stored.agent.state)) {
        const ending = {
          cause: "parent_exit",
          actor: "daemon",
          reason: `its parent ${agent.agent_id} is over`,
        } as const;
        const change = child.intend({ ending }, { agent: { desired: "stopped", reason: ending.reason } });
        change.catch((error) => log.error({ err: error }, "the end of a child could not be journaled"));
      }
    }
  }

  function need(agentId: string): AgentWorker {
    const worker = workers.get(agentId);
    if (worker) return worker;
    const guess = nearest(agentId, workers.keys());
    throw new OpenStarryError("agent_not_found", {
      detail: `there is no agent "${agentId}"`,
      hint: guess ? `did you mean "${guess}"?` : "list the agents to see their ids",
    });
  }

  async function changeable(agentId: string): Promise<AgentWorker> {
    await opened;
    if (stopping) throw new OpenStarryError("daemon_stopping", { detail: "the daemon is stopping" });
    const worker = need(agentId);
    if (worker.stored.deleting) {
      throw new OpenStarryError("agent_is_deleted", {
        detail: `agent ${agentId} is being deleted`,
        hint: "wait until it is gone, then create it anew",
      });
    }
    return worker;
  }

  async function pin(spec: CreateAgent): Promise<PinnedTemplate> {
    return spec.template ? parseTemplate(spec.template) : deps.templates.find(spec.template_id);
  }

  /** The record of a new agent, everything about it checked, nothing changed. */
  async function draft(spec: CreateAgent, origin: StoredAgent["origin"]): Promise<StoredAgent> {
    const template = await pin(spec);
    const { template: it } = template;
    const agent_id = spec.agent_id ?? `${spec.template_id.slice(0, 56)}-${shortId()}`;
    if (!ID_PATTERN.test(agent_id)) {
      throw new OpenStarryError("input_invalid", {
        detail: `agent_id ${JSON.stringify(agent_id.slice(0, 80))} is not valid`,
        hint: "use 1 to 63 of A-Z a-z 0-9 . _ - and do not start with . or -",
      });
    }
    checkRequires(agent_id, template, deps.endpoints());
    checkProbes(template, slots);
    const stored: StoredAgent = {
      agent: {
        agent_id,
        template_id: spec.template_id,
        template_revision: template.revision,
        state: spec.start === false ? "stopped" : "pending",
        desired: spec.start === false ? "stopped" : "running",
        health: "unknown",
        ...(spec.parent_id === undefined ? {} : { parent_id: spec.parent_id }),
        spawner: it.spawner,
        restarts: 0,
        created_at: now(),
        labels: { ...deps.config().defaults.labels, ...it.labels, ...spec.labels },
      },
      template,
      params: parseParams(template, spec.params ?? {}),
      origin,
    };
    await checkStart(stored, spec.env ?? {});
    return stored;
  }

  /** What the spawner can say before a start. */
  async function checkStart(stored: StoredAgent, secrets: Readonly<Record<string, string>>): Promise<void> {
    const runId = "00000000-0000-7000-8000-000000000000";
    const sources = {
      dataDir: deps.dataDir,
      defaults: deps.config().defaults,
      endpoints: deps.endpoints(),
      secrets,
    };
    await findSpawner(stored.agent.spawner).check(buildSpec(stored, runId, sources));
  }

  async function create(spec: CreateAgent, intent: Intent, origin: StoredAgent["origin"]): Promise<Agent> {
    if (stopping) throw new OpenStarryError("daemon_stopping", { detail: "the daemon is stopping" });
    const wanted = spec.agent_id;
    if (wanted !== undefined) refuseTaken(wanted);
    // Taken before anything is awaited: of a thousand requests for one id, one goes on.
    if (wanted !== undefined) reserved.add(wanted);
    try {
      const stored = await draft(spec, origin);
      const id = stored.agent.agent_id;
      if (Object.keys(spec.env ?? {}).length > 0) await theJournal().secrets.set(id, spec.env ?? {});
      const written = write({
        put: [stored],
        events: [eventOf(stored.agent, "agent.created", createdData(stored.agent, intent))],
        ...(spec.memo ? { memos: [spec.memo] } : {}),
      });
      const worker = createAgentWorker(stored, workerDeps, written);
      workers.set(id, worker);
      worker.resume();
      try {
        await written;
      } catch (error) {
        worker.halt();
        worker.dispose();
        workers.delete(id);
        throw error;
      }
      return worker.stored.agent;
    } finally {
      if (wanted !== undefined) reserved.delete(wanted);
    }
  }

  /** Enough to tell later, when the agent is gone, what it was and below whom. */
  function createdData({ template_id, parent_id }: Agent, { actor, reason }: Intent) {
    return { template_id, ...(parent_id === undefined ? {} : { parent_id }), actor, reason };
  }

  function refuseTaken(agentId: string) {
    const existing = workers.get(agentId)?.stored.agent;
    if (!existing && !reserved.has(agentId)) return;
    const ended = existing && isEnded(existing.state);
    throw new OpenStarryError("agent_exists", {
      detail: `there is an agent "${agentId}" already${existing ? `; it is ${existing.state}` : ""}`,
      hint: ended
        ? `start it again with POST /agents/${agentId}/start, or DELETE /agents/${agentId} first`
        : "use the one that exists, or choose another agent_id",
    });
  }

  function eventOf(agent: Agent, type: EventType, data: Record<string, unknown>): NewEvent {
    return { type, at: now(), agent_id: agent.agent_id, data };
  }

  /** Looks the template up again, where it can be: an explicit start takes the newest revision. */
  async function repin(stored: StoredAgent): Promise<Partial<StoredAgent>> {
    if (stored.template.origin === INLINE) return {};
    const template = await deps.templates.find(stored.agent.template_id);
    const params = parseParams(template, stored.params);
    await checkStart({ ...stored, template, params }, await theJournal().secrets.get(stored.agent.agent_id));
    return { template, params };
  }

  async function startAgent(agentId: string, cause?: StoredAgent["ending"]): Promise<Agent> {
    const worker = await changeable(agentId);
    const { state } = worker.stored.agent;
    const idle = isEnded(state) || state === "backoff";
    if (!idle && !cause) {
      // A start of what runs changes nothing; of what is being stopped, it comes after the end.
      await worker.intend({}, { agent: { desired: "running" } });
      return worker.stored.agent;
    }
    const pins = await repin(worker.stored);
    const agent: Partial<Agent> = {
      desired: "running",
      reason: undefined,
      next_start_at: undefined,
      ...(pins.template
        ? { template_revision: pins.template.revision, spawner: pins.template.template.spawner }
        : {}),
    };
    const ending = isLive(worker.stored.agent.state) ? cause : undefined;
    await worker.intend({ ...pins, restart_memory: undefined, ending }, { agent, event: "start" });
    return worker.stored.agent;
  }

  const commands: AgentCommands = {
    get: (agentId) => workers.get(agentId)?.stored.agent,
    list: () => [...workers.values()].map((worker) => worker.stored.agent),
    byRun(runId) {
      for (const { stored } of workers.values()) {
        if (stored.agent.run_id === runId && stored.agent.pid !== undefined && isLive(stored.agent.state))
          return stored.agent;
      }
      return undefined;
    },
    template: (agentId) => workers.get(agentId)?.stored.template,
    findTemplate: (templateId) => deps.templates.find(templateId),
    templates: () => deps.templates.list(),
    check: async (spec) => {
      if (spec.agent_id !== undefined) refuseTaken(spec.agent_id);
      return (await draft(spec, "request")).agent;
    },
    async create(spec, intent) {
      await opened;
      return create(spec, intent, "request");
    },
    start: (agentId) => startAgent(agentId),
    restart: async (agentId, intent) => {
      const worker = await changeable(agentId);
      if (intent.run_id !== undefined && intent.run_id !== worker.stored.agent.run_id)
        return worker.stored.agent;
      return startAgent(agentId, {
        cause: intent.cause ?? "restart",
        actor: intent.actor,
        reason: intent.reason,
      });
    },
    async stop(agentId, intent) {
      const worker = await changeable(agentId);
      if (intent.run_id !== undefined && intent.run_id !== worker.stored.agent.run_id)
        return worker.stored.agent;
      await worker.intend(endingBy(intent, worker), {
        agent: {
          desired: "stopped",
          ...(isLive(worker.stored.agent.state) ? {} : { reason: intent.reason }),
        },
        ...(intent.graceMs === undefined ? {} : { graceMs: intent.graceMs }),
      });
      return worker.stored.agent;
    },
    async remove(agentId, intent) {
      await opened;
      const worker = need(agentId);
      await worker.intend(
        { ...endingBy(intent, worker), deleting: true },
        {
          agent: { desired: "stopped" },
          ...(intent.graceMs === undefined ? {} : { graceMs: intent.graceMs }),
        },
      );
      return worker.stored.agent;
    },
    async signal(agentId, name, intent) {
      const worker = need(agentId);
      if (intent.run_id !== undefined && intent.run_id !== worker.stored.agent.run_id) return;
      await worker.signal(name);
    },
    markReady: (agentId, runId) => need(agentId).markReady(runId),
    markHealth: (agentId, runId, health, reason) => need(agentId).markHealth(runId, health, reason),
    async heartbeat(agentId, runId, report) {
      const worker = need(agentId);
      const { agent } = worker.stored;
      if (agent.run_id !== runId || !isLive(agent.state)) {
        throw new OpenStarryError("run_is_over", {
          detail: `run ${runId} of ${agentId} is over`,
          hint: "this process should end: the daemon does not count it as the agent any more",
        });
      }
      await worker.observe(report, { ...eventOf(agent, "agent.heartbeat", { ...report }), run_id: runId });
    },
    async hold(agentId, intent) {
      const worker = await changeable(agentId);
      await worker.intend({ held: { by: intent.actor, reason: intent.reason } });
    },
    async release(agentId) {
      const worker = await changeable(agentId);
      await worker.intend({ held: undefined });
    },
    wait: (agentId, condition, options) => waiters.wait(need(agentId), condition, options),
    runs: (agentId, limit) => theJournal().runs(agentId, limit),
    events: (query) => theJournal().events(query),
    lastEventId: () => theJournal().lastEventId(),
    memo: (key) => theJournal().memo(key),
    remember: (memo) => write({ memos: [memo] }),
  };

  function endingBy(intent: Intent, worker: AgentWorker): Partial<StoredAgent> {
    if (!isLive(worker.stored.agent.state) && worker.stored.agent.state !== "pending") return {};
    return { ending: { cause: intent.cause ?? "stop_request", actor: intent.actor, reason: intent.reason } };
  }

  async function load(): Promise<void> {
    const { agents, quarantined } = await theJournal().load();
    for (const { key, error } of quarantined) {
      log.error({ key, error }, "a record could not be read and is left alone");
      deps.problem(`record:${key}`, `record ${key} could not be read: ${error}`);
      await emit("record.quarantined", { key, error });
    }
    const adopted = await Promise.all(agents.map(adopt));
    const live = new Set(adopted.filter((runId) => runId !== undefined));
    await Promise.all([...slots.use(spawner).values()].map((it) => it.sweep?.(live)));
  }

  /** Answers the run that lives on. */
  async function adopt(stored: StoredAgent): Promise<string | undefined> {
    const { agent } = stored;
    const worker = createAgentWorker(stored, workerDeps);
    workers.set(agent.agent_id, worker);
    if (!isLive(agent.state)) return undefined;
    const { stop } = stored.template.template;
    const spec = { agentId: agent.agent_id, runId: agent.run_id ?? "", target: stored.target, stop };
    const found = await findSpawner(agent.spawner).adopt(spec);
    if (found.handle) worker.adopt(found.handle);
    else worker.settleLater(found.outcome);
    return found.handle ? agent.run_id : undefined;
  }

  async function reconcile({ fresh }: { fresh: boolean }): Promise<void> {
    const config = deps.config();
    for (const wanted of config.agents) await bringBack(wanted);
    const named = new Set(config.agents.map(({ agent_id }) => agent_id));
    for (const worker of inOrder(config)) {
      const { agent } = worker.stored;
      if (fresh && !named.has(agent.agent_id)) {
        const reason = "the daemon was started with --fresh";
        await worker.intend(
          isLive(agent.state) ? { ending: { cause: "stop_request", actor: "operator", reason } } : {},
          { agent: { desired: "stopped", reason } },
        );
      } else if (agent.state === "stopped" && agent.desired === "running") {
        await worker.intend({}, { agent: { reason: undefined }, event: "start" });
      }
      worker.resume();
    }
    open();
  }

  /** The master first, then the config's other agents, then the rest by age. */
  function inOrder(config: Config): AgentWorker[] {
    const first = config.agents.flatMap(({ agent_id }) => workers.get(agent_id) ?? []);
    return [...first, ...[...workers.values()].filter((worker) => !first.includes(worker))];
  }

  /** A config agent without a record gets one; one with a record keeps it, with today's parameters. */
  async function bringBack(wanted: ConfigAgent): Promise<void> {
    const worker = workers.get(wanted.agent_id);
    const intent = { actor: "config", reason: "named in the config" };
    if (!worker) {
      await create(wanted, intent, "config");
      return;
    }
    const { stored } = worker;
    if (isLive(stored.agent.state)) return;
    try {
      const template = await deps.templates.find(wanted.template_id);
      const params = parseParams(template, wanted.params);
      await theJournal().secrets.set(wanted.agent_id, wanted.env);
      const agent = { template_id: wanted.template_id, template_revision: template.revision };
      await worker.intend({ template, params, origin: "config" }, { agent });
    } catch (error) {
      // It has run before: what it was pinned to is better than nothing.
      deps.problem(
        `agent:${wanted.agent_id}`,
        `${toOpenStarryError(error).message}; the former template is used`,
      );
    }
  }

  async function reconfigure(before: Config, after: Config): Promise<string[]> {
    const applied: string[] = [];
    const intent = { actor: "operator", reason: "the config was reloaded" };
    for (const wanted of after.agents) {
      if (workers.has(wanted.agent_id)) continue;
      await create(wanted, intent, "config");
      applied.push(`agent ${wanted.agent_id} was added`);
    }
    for (const { agent_id } of before.agents) {
      if (after.agents.some((agent) => agent.agent_id === agent_id) || !workers.has(agent_id)) continue;
      await commands.stop(agent_id, { ...intent, reason: "it is no longer in the config" });
      applied.push(`agent ${agent_id} is stopped: it is no longer in the config`);
    }
    return applied;
  }

  async function stopAll(options: { reason: string; budgetMs: number; signal?: AbortSignal }): Promise<void> {
    stopping = true;
    const ending = { cause: "daemon_stop", actor: "daemon", reason: options.reason } as const;
    const live = [...workers.values()].filter(
      ({ stored }) => isLive(stored.agent.state) || stored.agent.state === "pending",
    );
    for (const worker of workers.values()) if (!isLive(worker.stored.agent.state)) worker.halt();
    const end = clock.monotonic() + options.budgetMs;
    for (const wave of stopWaves(live.map(({ stored }) => stored))) {
      const inWave = wave.flatMap((id) => workers.get(id) ?? []);
      for (const worker of inWave) worker.halt(ending);
      await Promise.all(
        inWave.map((worker) => {
          const left = Math.max(1, end - clock.monotonic());
          const ended = waiters.wait(worker, "over", {
            timeoutMs: left,
            ...(options.signal ? { signal: options.signal } : {}),
          });
          return ended.catch(() =>
            log.error({ agent_id: worker.stored.agent.agent_id }, "it did not end in time"),
          );
        }),
      );
    }
  }

  function release() {
    stopping = true;
    for (const worker of workers.values()) {
      worker.halt();
      worker.dispose();
    }
  }

  async function emit(type: EventType, data: Record<string, unknown>): Promise<void> {
    await write({ events: [{ type, at: now(), data }] });
  }

  function recheck() {
    for (const worker of workers.values()) worker.poke();
  }

  return { commands, load, reconcile, reconfigure, stopAll, release, recheck, emit };
}

/** The `origin` of templates that came with the request itself. */
export const INLINE = "request";
