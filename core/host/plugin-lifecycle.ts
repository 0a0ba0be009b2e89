import type { Agent } from "../contracts/agent.js";
import type { Clock } from "../contracts/clock.js";
import { isOpenStarryError, OpenStarryError } from "../contracts/errors.js";
import type {
  Logger,
  PluginContext,
  PluginInfo,
  PluginLifecycle,
  ResolvedPlugin,
} from "../contracts/plugin.js";
import type { ServiceSpec } from "../contracts/service.js";
import type { Slot } from "../contracts/slot.js";
import { withDeadline } from "../lib/deadline.js";
import { errorText } from "../lib/error-text.js";
import { formatDuration } from "../lib/units.js";
import { validateSync } from "../lib/validate.js";
import type { EventHub } from "./events.js";
import { createHookTaps } from "./hook-guard.js";
import type { Hooks } from "./hooks.js";
import type { SlotRegistry } from "./slots.js";

/** What every plugin's context shares. */
export type SharedContext = Omit<
  PluginContext,
  "name" | "log" | "hooks" | "events" | "provide" | "services" | "daemon" | "principal"
> & {
  services: Omit<PluginContext["services"], "ensure"> & {
    ensure(name: string, spec: ServiceSpec, plugin: string): Promise<Agent>;
  };
  daemon: Omit<PluginContext["daemon"], "degraded" | "recovered">;
};

export interface PluginHostDeps {
  /** Ordered: providers before those who use them. */
  plugins: readonly ResolvedPlugin[];
  hooks: Hooks;
  events: EventHub;
  slots: SlotRegistry;
  clock: Clock;
  log: Logger;
  limits: { tapDeadlineMs: number; pluginDeadlineMs: number };
  shared: SharedContext;
  /** A plugin became degraded, or recovered (`undefined`). */
  onFault: (plugin: string, problem: string | undefined) => void;
}

export interface PluginHost {
  /** Calls every `setup`, in order. Nothing is started yet, so nothing has to be undone. */
  setup(): void;
  /** Starts the plugins that provide one of these slots, and what those require. */
  startProviders(slots: readonly Slot<unknown>[]): Promise<void>;
  /** Starts all others. */
  startRest(): Promise<void>;
  /** Stops what is started, in reverse; every one is tried. Safe to call twice. */
  stop(): Promise<void>;
  info(): PluginInfo[];
}

interface Loaded {
  readonly plugin: ResolvedPlugin;
  readonly name: string;
  lifecycle: PluginLifecycle;
  state: "loaded" | "started" | "stopped";
  problem: string | undefined;
}

export function createPluginHost(deps: PluginHostDeps): PluginHost {
  const loaded = deps.plugins.map(
    (plugin): Loaded => ({
      plugin,
      name: plugin.definition.name,
      lifecycle: {},
      state: "loaded",
      problem: undefined,
    }),
  );
  return {
    setup: () => setUp(deps, loaded),
    async startProviders(slots) {
      const chosen = providersOf(loaded, slots);
      await startAll(
        deps,
        loaded.filter((it) => chosen.has(it)),
      );
    },
    startRest: () => startAll(deps, loaded),
    stop: () => stopAll(deps, loaded),
    info: () => loaded.map(infoOf),
  };
}

function setUp(deps: PluginHostDeps, loaded: readonly Loaded[]): void {
  for (const it of loaded) {
    const { definition, options, place } = it.plugin;
    const valid = validateSync(definition.options, options, {
      code: "config_invalid",
      what: `options of plugin ${it.name} (${place})`,
    });
    try {
      it.lifecycle = definition.setup(contextOf(deps, it), valid) ?? {};
    } catch (cause) {
      throw failure(it, "could not be set up", cause);
    }
  }
  deps.slots.seal();
}

/** Everything that one plugin gets. */
function contextOf(deps: PluginHostDeps, it: Loaded): PluginContext {
  const { clock, log, limits } = deps;
  const { name } = it;
  const fault = faultsOf(deps, it);
  return Object.freeze({
    ...deps.shared,
    name,
    log: prefixed(log, name),
    principal: { kind: "internal", id: `plugin:${name}` },
    hooks: createHookTaps(deps.hooks, {
      plugin: name,
      clock,
      tapDeadlineMs: limits.tapDeadlineMs,
      isStopped: () => it.state === "stopped",
      onFault: (tap, error) => fault(tap, error?.message),
    }),
    events: deps.events.listenersOf({
      isStopped: () => it.state === "stopped",
      onFault(error) {
        log.error({ plugin: name, err: error }, "a listener of events failed");
        fault("events", `a listener of events failed: ${errorText(error)}`);
      },
    }),
    provide: (slot, implementation) => deps.slots.provide(slot, implementation, name),
    services: Object.freeze({
      ...deps.shared.services,
      ensure: (service: string, spec: ServiceSpec) => deps.shared.services.ensure(service, spec, name),
    }),
    daemon: Object.freeze({
      ...deps.shared.daemon,
      degraded: (problem: string) => fault("plugin", problem),
      recovered: () => fault("plugin", undefined),
    }),
  } satisfies PluginContext);
}

/** Keeps what is wrong with a plugin, by source: the plugin itself, a tap, a listener. The newest is shown. */
function faultsOf(
  { onFault }: PluginHostDeps,
  it: Loaded,
): (source: string, text: string | undefined) => void {
  const faults = new Map<string, string>();
  return (source, text) => {
    if (text === undefined && !faults.delete(source)) return;
    if (text !== undefined) faults.set(source, text);
    const problem = [...faults.values()].at(-1);
    if (it.problem === problem) return;
    it.problem = problem;
    onFault(it.name, problem);
  };
}

async function startAll(deps: PluginHostDeps, chosen: readonly Loaded[]): Promise<void> {
  for (const it of chosen) {
    if (it.state !== "loaded") continue;
    // Marked first: what has begun to start must be stopped again, whether or not it got there.
    it.state = "started";
    try {
      await inTime(deps, "start", (signal) => it.lifecycle.start?.(signal));
    } catch (cause) {
      throw failure(it, "could not be started", cause);
    }
  }
}

/** Stops plugins in reverse; every one is tried. */
async function stopAll(deps: PluginHostDeps, loaded: readonly Loaded[]): Promise<void> {
  for (const it of [...loaded].reverse()) {
    if (it.state !== "started") continue;
    try {
      await inTime(deps, "stop", (signal) => it.lifecycle.stop?.(signal));
    } catch (error) {
      deps.log.error({ plugin: it.name, err: error }, "a plugin could not be stopped; the others are");
    }
    it.state = "stopped";
  }
}

/** Runs a plugin's start or stop, which must settle in time; the kernel does not wait longer. */
function inTime(
  { clock, limits }: PluginHostDeps,
  what: "start" | "stop",
  work: (signal: AbortSignal) => Promise<void> | void | undefined,
): Promise<void> {
  const late = `its ${what}() did not settle within ${formatDuration(limits.pluginDeadlineMs)}`;
  return withDeadline(clock, limits.pluginDeadlineMs, late, async (signal) => work(signal));
}

function failure(it: Loaded, what: string, cause: unknown): OpenStarryError {
  // The plugin's own words stand, with who said them.
  if (isOpenStarryError(cause)) {
    return new OpenStarryError(cause.code, {
      detail: `plugin ${it.name} ${what}: ${cause.message}`,
      hint: cause.hint,
      data: cause.data,
      cause,
    });
  }
  return new OpenStarryError("plugin_failed", {
    detail: `plugin ${it.name} (${it.plugin.place}) ${what}: ${errorText(cause)}`,
    hint: `fix the plugin, or leave it out with ["${it.name}", false]`,
    cause,
  });
}

/** The providers of these slots, and of all that they require. */
function providersOf(loaded: readonly Loaded[], slots: readonly Slot<unknown>[]): Set<Loaded> {
  const chosen = new Set<Loaded>();
  const visit = (ids: readonly symbol[]) => {
    for (const it of loaded) {
      const { provides = [], requires = [], optional = [] } = it.plugin.definition;
      if (chosen.has(it) || !provides.some(({ id }) => ids.includes(id))) continue;
      chosen.add(it);
      visit([...requires, ...optional].map(({ id }) => id));
    }
  };
  visit(slots.map(({ id }) => id));
  return chosen;
}

function infoOf({ plugin, name, state, problem }: Loaded): PluginInfo {
  const { version } = plugin.definition;
  return {
    name,
    ...(version === undefined ? {} : { version }),
    origin: plugin.origin,
    state: problem === undefined || state === "stopped" ? state : "degraded",
    ...(problem === undefined ? {} : { problem }),
  };
}

function prefixed(log: Logger, plugin: string): Logger {
  return {
    debug: (fields, message) => log.debug({ plugin, ...fields }, message),
    info: (fields, message) => log.info({ plugin, ...fields }, message),
    warn: (fields, message) => log.warn({ plugin, ...fields }, message),
    error: (fields, message) => log.error({ plugin, ...fields }, message),
  };
}
