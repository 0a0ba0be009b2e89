import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { createHookTaps } from "../../core/host/hook-guard.js";
import { createHooks } from "../../core/host/hooks.js";
import { createDispatch } from "../../core/host/operations.js";
import { createSlotRegistry, type SlotRegistry } from "../../core/host/slots.js";
import {
  type Agent,
  type AgentLookup,
  type Clock,
  type ConfiguredPlugin,
  type DaemonControl,
  type DaemonStatus,
  type Endpoint,
  type Logger,
  type Operation,
  operation,
  type PinnedTemplate,
  type PluginContext,
  type PluginLifecycle,
  type SocketHandover,
  templateSource,
  validateSync,
} from "../../core/index.js";
import { systemClock } from "../../core/lib/clock.js";
import { createTemplates } from "../../core/template/templates.js";
import { templateLanguage } from "./template-language.js";

export interface LogLine {
  level: string;
  fields: Record<string, unknown>;
  message: string;
}

export interface PluginHostOptions {
  /** In order: providers first. */
  plugins: readonly ConfiguredPlugin[];
  operations?: readonly Operation<never>[];
  agents?: readonly FixtureAgent[];
  /** Absent: a new temporary folder. */
  home?: string;
  clock?: Clock;
  control?: Partial<DaemonControl>;
  sockets?: SocketHandover;
  /** To be looked into by the test. */
  slots?: SlotRegistry;
}

/** An agent record, and the `children` section of its template. */
export interface FixtureAgent {
  id: string;
  parent?: string;
  state?: Agent["state"];
  children?: { max?: number; depth?: number };
}

/** Some plugins on a real slot registry, hook table and dispatch, with a table of agents that do not run. */
export interface PluginHost {
  readonly home: string;
  readonly log: LogLine[];
  readonly endpoints: Endpoint[];
  readonly agents: Map<string, Agent>;
  readonly problems: string[];
  readonly dispatch: PluginContext["dispatch"];
  /** What the daemon says of itself. */
  state: DaemonStatus["state"];
  /** What every plugin says is wrong with it. */
  pluginProblem: string | undefined;
  use: PluginContext["use"];
  start(): Promise<void>;
  /** Aborts the plugins' signal when `now` is set. */
  stop(now?: boolean): Promise<void>;
}

export function createPluginHost(options: PluginHostOptions): PluginHost {
  const slots = options.slots ?? createSlotRegistry();
  const hooks = createHooks();
  const clock = options.clock ?? systemClock;
  const dispatch = createDispatch({ slots, hooks, clock, deadlineMs: 5_000, problem: () => {} });
  const home = options.home ?? mkdtempSync(join(tmpdir(), "oh-"));
  const log: LogLine[] = [];
  const endpoints: Endpoint[] = [];
  const problems: string[] = [];
  const { agents, lookup } = agentTable(options.agents ?? []);
  const started: PluginLifecycle[] = [];
  const host: PluginHost = {
    home,
    log,
    endpoints,
    agents,
    problems,
    dispatch,
    use: slots.use,
    state: "ready",
    pluginProblem: undefined,
    async start() {
      for (const it of lifecycles) {
        await it.start?.(new AbortController().signal);
        started.unshift(it);
      }
    },
    async stop(now = false) {
      const signal = now ? AbortSignal.abort() : new AbortController().signal;
      for (const it of started.splice(0)) await it.stop?.(signal);
    },
  };
  for (const it of options.operations ?? []) slots.provide(operation, it, "fixture");

  const contextOf = (name: string): PluginContext => ({
    name,
    log: recorder(log),
    clock,
    dataDir: home,
    hooks: createHookTaps(hooks, {
      plugin: name,
      clock,
      tapDeadlineMs: 5_000,
      isStopped: () => false,
      onFault: (_, error) => void (error && problems.push(error.message)),
    }),
    provide: (slot, implementation) => slots.provide(slot, implementation, name),
    use: slots.use,
    has: slots.has,
    dispatch,
    events: { on: () => () => {}, onAny: () => () => {} },
    templates: createTemplates({
      sources: () => slots.use(templateSource),
      language: () => templateLanguage,
    }),
    agents: lookup,
    control: refused("control"),
    reports: refused("reports"),
    journal: refused("journal"),
    services: {
      publishEndpoint: (endpoint) => endpoints.push(endpoint),
      endpoints: () => endpoints,
      ensure: unexpected,
      get: () => undefined,
    },
    daemon: {
      status: () => ({
        version: "1.2.3",
        pid: process.pid,
        started_at: "2026-01-01T00:00:00.000Z",
        state: host.state,
        problems,
      }),
      plugins: () =>
        options.plugins.map(({ definition: { name } }) => ({
          name,
          origin: "default",
          state: "started",
          ...(host.pluginProblem === undefined ? {} : { problem: host.pluginProblem }),
        })),
      degraded: (problem) => problems.push(problem),
      recovered: () => problems.splice(0),
      control: { stop: unexpected, restart: unexpected, reload: unexpected, ...options.control },
      sockets: options.sockets ?? { inherited: () => undefined, offer: () => {}, handedOver: () => false },
    },
    principal: { kind: "internal", id: `plugin:${name}` },
  });
  const lifecycles = options.plugins.map(({ definition, options: given }) => {
    const what = `options of ${definition.name}`;
    const valid = validateSync(definition.options, given, { code: "config_invalid", what });
    return definition.setup(contextOf(definition.name), valid) ?? {};
  });
  slots.seal();
  return host;
}

function agentTable(fixtures: readonly FixtureAgent[]) {
  const agents = new Map<string, Agent>();
  const templates = new Map<string, PinnedTemplate>();
  for (const { id, parent, state = "running", children } of fixtures) {
    const template_id = `${id}_v1`;
    const document = { template_id, command: "/bin/true", ...(children ? { children } : {}) };
    templates.set(id, templateLanguage.parse({ template_id, revision: "1", origin: "fixture", document }));
    agents.set(id, {
      agent_id: id,
      template_id,
      template_revision: "1",
      run_id: `run-of-${id}`,
      state,
      desired: "running",
      health: "unknown",
      spawner: "process",
      restarts: 0,
      created_at: "2026-01-01T00:00:00.000Z",
      labels: {},
      ...(parent === undefined ? {} : { parent_id: parent }),
    });
  }
  const lookup = {
    get: (id: string) => agents.get(id),
    list: () => [...agents.values()],
    template: (id: string) => templates.get(id),
    byRun: (runId: string) =>
      [...agents.values()].find((agent) => agent.run_id === runId && agent.state === "running"),
  } satisfies Partial<AgentLookup>;
  return { agents, lookup: lookup as unknown as AgentLookup };
}

function recorder(log: LogLine[]): Logger {
  const at = (level: string) => (fields: object, message: string) => {
    log.push({ level, fields: fields as Record<string, unknown>, message });
  };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

const unexpected = () => Promise.reject(new Error("not expected in this test"));

/** A part of the context that these tests do not use. */
function refused<T extends object>(part: string): T {
  return new Proxy({} as T, {
    get: (_, name) => {
      throw new Error(`${part}.${String(name)} is not expected in this test`);
    },
  });
}
