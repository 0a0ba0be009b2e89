import { createSupervisor } from "./agents/supervisor.js";
import type { AgentControl } from "./contracts/agent-control.js";
import type { AgentLookup } from "./contracts/agent-lookup.js";
import type { AgentReports } from "./contracts/agent-reports.js";
import { authorizer } from "./contracts/authorizer.js";
import type { Clock } from "./contracts/clock.js";
import type { Config } from "./contracts/config.js";
import { OpenStarryError } from "./contracts/errors.js";
import { journal } from "./contracts/journal.js";
import type { JournalAccess } from "./contracts/journal-access.js";
import type { Dispatch } from "./contracts/operation.js";
import type {
  DaemonControl,
  DaemonStatus,
  Endpoint,
  Logger,
  PluginInfo,
  ResolvedPlugin,
  SocketHandover,
} from "./contracts/plugin.js";
import { restartPolicy } from "./contracts/restart-policy.js";
import type { Slot } from "./contracts/slot.js";
import { spawner } from "./contracts/spawner.js";
import { templateSection } from "./contracts/template-section.js";
import { type TemplateLookup, templateSource } from "./contracts/template-source.js";
import { createEndpointRegistry } from "./host/endpoints.js";
import { createEventHub } from "./host/events.js";
import { createHooks } from "./host/hooks.js";
import { createDispatch } from "./host/operations.js";
import { orderPlugins } from "./host/plugin-graph.js";
import { createPluginHost, type PluginHost, type SharedContext } from "./host/plugin-lifecycle.js";
import { createProblems } from "./host/problems.js";
import { createSlotRegistry } from "./host/slots.js";
import { rfc3339, systemClock } from "./lib/clock.js";
import { createTemplateLanguage, type TemplateLanguage } from "./template/language.js";
import { createTemplates } from "./template/templates.js";

export interface KernelOptions {
  /** In the order of the config, defaults first. */
  plugins: readonly ResolvedPlugin[];
  config: Config;
  /** Where it stands, for messages. */
  configFile?: string;
  /** Start the config's agents only; the records of others are kept, stopped. */
  fresh?: boolean;
  /** The daemon's home. */
  dataDir: string;
  /** Plugins that could be added, by the template section that each would provide; for messages. */
  sectionOrigins?: ReadonlyMap<string, string>;
  version: string;
  pid: number;
  log: Logger;
  clock?: Clock;
  /** Absent: the daemon as a whole cannot be told to do anything by a plugin. */
  control?: DaemonControl;
  /** Absent: there is no successor to hand sockets to. */
  sockets?: SocketHandover;
  limits?: Partial<KernelLimits>;
}

export interface KernelLimits {
  /** How long one tap, and one answer of an authorizer, may take. Default 10,000. */
  tapDeadlineMs: number;
  /** How long one plugin may take to start, or to stop. Default 15,000. */
  pluginDeadlineMs: number;
  /** How long all agents together may take to stop. Default 120,000. */
  stopBudgetMs: number;
}

const DEFAULT_LIMITS: KernelLimits = {
  tapDeadlineMs: 10_000,
  pluginDeadlineMs: 15_000,
  stopBudgetMs: 120_000,
};

export interface Kernel {
  /**
   * Sets all plugins up, opens the journal, adopts what lives, starts the other plugins, reconciles.
   * Rejects with everything undone again; agents that it adopted are left running.
   */
  start(): Promise<void>;
  /**
   * Ends the agents in waves, or leaves them, and stops the plugins in reverse. Safe to call twice. When
   * `signal` aborts, agents that still live are killed.
   */
  stop(how: { agents: "stop" | "keep"; reason: string; signal?: AbortSignal }): Promise<void>;
  /** Takes over a changed config as far as that can be done while running. */
  reconfigure(config: Config): Promise<{ applied: string[] }>;
  readonly dispatch: Dispatch;
  readonly agents: AgentLookup;
  readonly templates: TemplateLookup;
  readonly control: AgentControl;
  readonly reports: AgentReports;
  readonly journal: JournalAccess;
  status(): DaemonStatus;
  plugins(): PluginInfo[];
  endpoints(): readonly Endpoint[];
}

/** What the kernel cannot do without, in the order of boot. */
export const KERNEL_SLOTS: readonly Slot<unknown>[] = [
  journal,
  templateSource,
  restartPolicy,
  spawner,
  authorizer,
];

/** How often everything that waits is looked at again: events are hints, this is the net under them. */
const RECHECK_MS = 5_000;

/** What stands on nothing else: tables that are empty, and what changes while the kernel runs. */
function createTables(options: KernelOptions) {
  const { log, clock = systemClock } = options;
  const now: {
    config: Config;
    state: DaemonStatus["state"];
    host?: PluginHost;
    language?: TemplateLanguage;
  } = { config: options.config, state: "starting" };
  return {
    log,
    clock,
    now,
    limits: { ...DEFAULT_LIMITS, ...options.limits },
    hooks: createHooks(),
    slots: createSlotRegistry(),
    events: createEventHub(),
    problems: createProblems(log),
    endpoints: createEndpointRegistry(),
    startedAt: rfc3339(clock.now()),
  };
}

/** The parts of a kernel, put together; nothing runs yet. */
function assemble(options: KernelOptions) {
  const tables = createTables(options);
  const { log, clock, now, limits, hooks, slots, events, problems, endpoints } = tables;
  const problem = problems.report;
  const deadlineMs = limits.tapDeadlineMs;
  const templates = createTemplates({
    sources: () => slots.use(templateSource),
    language() {
      if (now.language) return now.language;
      throw new Error("templates can be read from start() on, when all plugins are set up");
    },
  });
  const supervisor = createSupervisor({
    clock,
    log,
    hooks,
    slots,
    config: () => now.config,
    configFile: options.configFile,
    dataDir: options.dataDir,
    templates,
    endpoints: endpoints.list,
    publish: events.publish,
    problem,
  });
  const dispatch = createDispatch({ slots, hooks, clock, deadlineMs, problem });
  const status = (): DaemonStatus => ({
    version: options.version,
    pid: options.pid,
    started_at: tables.startedAt,
    state: now.state,
    problems: problems.list(),
    last_event_id: now.state === "starting" ? undefined : supervisor.commands.journal.lastEventId(),
  });
  return { ...tables, problem, templates, supervisor, dispatch, status };
}
type Parts = ReturnType<typeof assemble>;

export function createKernel(options: KernelOptions): Kernel {
  const parts = assemble(options);
  const { now, supervisor, dispatch, templates, status, endpoints } = parts;
  let stopped: Promise<void> | undefined;
  return {
    start: () => start(parts, options),
    stop(how) {
      stopped ??= stop(parts, how);
      return stopped;
    },
    async reconfigure(after) {
      const applied = await supervisor.reconfigure(now.config, after);
      now.config = after;
      return { applied };
    },
    dispatch,
    templates,
    ...supervisor.commands,
    status,
    plugins: () => now.host?.info() ?? [],
    endpoints: endpoints.list,
  };
}

/** What the contexts of all plugins share. */
function sharedContext(parts: Parts, options: KernelOptions): SharedContext {
  const { clock, slots, dispatch, templates, supervisor, endpoints, status, now } = parts;
  return {
    clock,
    dataDir: options.dataDir,
    use: (slot) => slots.use(slot),
    has: (slot) => slots.has(slot),
    dispatch,
    templates,
    ...supervisor.commands,
    services: {
      publishEndpoint: endpoints.publish,
      endpoints: endpoints.list,
      ensure: supervisor.services.ensure,
      get: supervisor.services.get,
    },
    daemon: {
      status,
      plugins: () => now.host?.info() ?? [],
      control: options.control ?? noControl,
      sockets: options.sockets ?? noSockets,
    },
  };
}

async function start(parts: Parts, options: KernelOptions): Promise<void> {
  const { hooks, slots, events, clock, log, limits, supervisor, now, problem } = parts;
  const { ordered } = orderPlugins(options.plugins);
  const shared = sharedContext(parts, options);
  const onFault = (plugin: string, text: string | undefined) => {
    problem(`plugin:${plugin}`, text === undefined ? undefined : `plugin ${plugin}: ${text}`);
    if (text !== undefined)
      void supervisor.emit("plugin.degraded", { plugin, problem: text }).catch(() => {});
  };
  const host = createPluginHost({
    plugins: ordered,
    hooks,
    slots,
    events,
    clock,
    log,
    limits,
    shared,
    onFault,
  });
  now.host = host;
  host.setup();
  for (const slot of KERNEL_SLOTS) if (!slots.has(slot)) throw missingSlot(slot);
  now.language = createTemplateLanguage(slots.use(templateSection).values(), options.sectionOrigins);
  try {
    await host.startProviders(KERNEL_SLOTS);
    await supervisor.load();
    await host.startRest();
    await supervisor.reconcile({ fresh: options.fresh ?? false });
  } catch (error) {
    supervisor.release();
    await host.stop();
    throw error;
  }
  now.state = "ready";
  recheckLater(parts);
  await supervisor.emit("daemon.ready", { version: options.version, pid: options.pid }).catch(() => {});
  await hooks.onDaemonReady.promise({ at: rfc3339(clock.now()) });
}

function recheckLater(parts: Parts): void {
  parts.clock.after(RECHECK_MS, () => {
    if (parts.now.state !== "ready") return;
    parts.supervisor.recheck();
    recheckLater(parts);
  });
}

async function stop(parts: Parts, how: Parameters<Kernel["stop"]>[0]): Promise<void> {
  const { now, hooks, supervisor, limits } = parts;
  const { agents, reason, signal } = how;
  now.state = "stopping";
  await hooks.onDaemonStopping.promise({ reason });
  await supervisor.emit("daemon.stopping", { reason, agents }).catch(() => {});
  if (agents === "stop") await supervisor.stopAll({ reason, budgetMs: limits.stopBudgetMs, signal });
  supervisor.release();
  await now.host?.stop();
}

export function missingSlot(slot: Slot<unknown>): OpenStarryError {
  return new OpenStarryError("plugin_conflict", {
    detail: `required slot ${slot.name} has no provider`,
    hint: `add a plugin that provides ${slot.name}, or take the line with "false" for its default out of the config`,
  });
}

const unavailable = () =>
  Promise.reject(new OpenStarryError("internal", { detail: "not supported in this process" }));
const noControl: DaemonControl = { stop: unavailable, restart: unavailable, reload: unavailable };
const noSockets: SocketHandover = { inherited: () => undefined, offer: () => {}, handedOver: () => false };
