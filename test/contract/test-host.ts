import { createEventHub } from "../../core/host/events.js";
import { createHooks } from "../../core/host/hooks.js";
import { createDispatch } from "../../core/host/operations.js";
import { orderPlugins } from "../../core/host/plugin-graph.js";
import { createPluginHost } from "../../core/host/plugin-lifecycle.js";
import { createSlotRegistry } from "../../core/host/slots.js";
import {
  type Clock,
  type ConfiguredPlugin,
  createTemplateLanguage,
  OpenStarryError,
  type PluginContext,
  systemClock,
  type TemplateLanguage,
  templateSection,
  templateSource,
} from "../../core/index.js";
import { createTemplates } from "../../core/template/templates.js";
import { memorySections } from "./memory-sections.js";
import { createRecorder, type LoggedLine } from "./recorder.js";
import { createTestKernel } from "./test-kernel.js";

export interface TestHostOptions {
  plugins: readonly ConfiguredPlugin[];
  /** What the plugins find as `dataDir`. */
  dataDir: string;
  clock?: Clock;
}

export interface TestHost {
  /** What the plugins provide, to be driven directly. */
  readonly use: PluginContext["use"];
  readonly dispatch: PluginContext["dispatch"];
  /** What was logged: level, fields, message. */
  readonly logged: readonly LoggedLine[];
  /** Starts the plugins, providers first. */
  start(): Promise<void>;
  /** Stops them, in reverse. Safe to call twice. */
  stop(): Promise<void>;
}

/** As the daemon has them. */
const LIMITS = { tapDeadlineMs: 10_000, pluginDeadlineMs: 15_000 };

/**
 * Plugins set up as the kernel does it, and nothing done with them: there are no agents, nobody opens
 * the journal, no run is adopted or cleared away. It is what the contract suites want of an
 * implementation that lives in a plugin; a test of a plugin among agents takes `createTestKernel`.
 */
export function createTestHost({ plugins, dataDir, clock = systemClock }: TestHostOptions): TestHost {
  const hooks = createHooks();
  const slots = createSlotRegistry();
  const dispatch = createDispatch({
    slots,
    hooks,
    clock,
    deadlineMs: LIMITS.tapDeadlineMs,
    problem: () => {},
  });
  const { log, logged } = createRecorder();
  // Never started: what plugins are told of agents and daemon when there are none.
  const { agents, control, reports, journal, endpoints, status } = createTestKernel({ clock, dataDir });
  let language: TemplateLanguage | undefined;
  const templates = createTemplates({
    sources: () => slots.use(templateSource),
    language() {
      language ??= createTemplateLanguage([...memorySections, ...slots.use(templateSection).values()]);
      return language;
    },
  });
  const host = createPluginHost({
    plugins: orderPlugins(
      plugins.map((plugin, index) => ({ ...plugin, origin: "config", place: `plugins[${index}]` })),
    ).ordered,
    hooks,
    events: createEventHub(),
    slots,
    clock,
    log,
    limits: LIMITS,
    shared: {
      clock,
      dataDir,
      use: slots.use,
      has: slots.has,
      dispatch,
      templates,
      agents,
      control,
      reports,
      journal,
      services: { publishEndpoint: () => {}, endpoints, ensure: unavailable, get: () => undefined },
      daemon: {
        status,
        plugins: () => host.info(),
        control: { stop: unavailable, restart: unavailable, reload: unavailable },
        sockets: { inherited: () => undefined, offer: () => {}, handedOver: () => false },
      },
    },
    onFault: () => {},
  });
  host.setup();
  return { use: slots.use, dispatch, logged, start: () => host.startRest(), stop: () => host.stop() };
}

const unavailable = () =>
  Promise.reject(new OpenStarryError("internal", { detail: "there is no daemon in this test" }));
