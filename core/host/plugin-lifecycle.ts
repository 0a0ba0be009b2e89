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
  const { clock, log, limits } = deps;
  const loaded: Loaded[] = deps.plugins.map((plugin) => ({
    plugin,
    name: plugin.definition.name,
    lifecycle: {},
    state: "loaded",
    problem: undefined,
  }));

  function setup() {
    for (const it of loaded) {
      const { definition, options, place } = it.plugin;
      const valid = validateSync(definition.options, options, {
        code: "config_invalid",
        what: `options of plugin ${it.name} (${place})`,
      });
      try {
        it.lifecycle = definition.setup(contextOf(it), valid) ?? {};
      } catch (cause) {
        throw failure(it, "could not be set up", cause);
      }
    }
    deps.slots.seal();
  }

  function contextOf(it: Loaded): PluginContext {
    const { name } = it;
    /** What is wrong, by who says so: the plugin itself, or one of its taps. */
    const faults = new Map<string, string>();
    const fault = (source: string, text: string | undefined) => {
      if (text === undefined && !faults.delete(source)) return;
      if (text !== undefined) faults.set(source, text);
      const problem = [...faults.values()].at(-1);
      if (it.problem === problem) return;
      it.problem = problem;
      deps.onFault(name, problem);
    };
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
          fault(
            "events",
            `a listener of events failed: ${error instanceof Error ? error.message : String(error)}`,
          );
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

  async function startAll(chosen: readonly Loaded[]): Promise<void> {
    for (const it of chosen) {
      if (it.state !== "loaded") continue;
      // Marked first: what has begun to start must be stopped again, whether or not it got there.
      it.state = "started";
      try {
        await inTime("start", (signal) => it.lifecycle.start?.(signal));
      } catch (cause) {
        throw failure(it, "could not be started", cause);
      }
    }
  }

  /** Runs a plugin's start or stop, which must settle in time; the kernel does not wait longer. */
  function inTime(
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
        ...(cause.hint === undefined ? {} : { hint: cause.hint }),
        data: cause.data,
        cause,
      });
    }
    return new OpenStarryError("plugin_failed", {
      detail: `plugin ${it.name} (${it.plugin.place}) ${what}: ${cause instanceof Error ? cause.message : String(cause)}`,
      hint: `mend the plugin, or leave it out with ["${it.name}", false]`,
      cause,
    });
  }

  /** The providers of these slots, and of all that they require. */
  function providersOf(slots: readonly Slot<unknown>[]): Set<Loaded> {
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

  return {
    setup,
    async startProviders(slots) {
      const chosen = providersOf(slots);
      await startAll(loaded.filter((it) => chosen.has(it)));
    },
    startRest: () => startAll(loaded),
    async stop() {
      for (const it of [...loaded].reverse()) {
        if (it.state !== "started") continue;
        try {
          await inTime("stop", (signal) => it.lifecycle.stop?.(signal));
        } catch (error) {
          log.error({ plugin: it.name, err: error }, "a plugin could not be stopped; the others are");
        }
        it.state = "stopped";
      }
    },
    info: () =>
      loaded.map(({ plugin, name, state, problem }) => ({
        name,
        ...(plugin.definition.version === undefined ? {} : { version: plugin.definition.version }),
        origin: plugin.origin,
        state: problem === undefined || state === "stopped" ? state : "degraded",
        ...(problem === undefined ? {} : { problem }),
      })),
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
