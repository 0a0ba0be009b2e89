import type { PluginFactory } from "../core/index.js";

/** A plugin that comes with the daemon. */
export interface BuiltinPlugin {
  /** Loads without being named in the config. */
  readonly default: boolean;
  /** The template sections that it provides. */
  readonly sections?: readonly string[];
  load(): Promise<{ readonly default: PluginFactory<never> }>;
}

/**
 * The plugins that a config can name, and those that load by themselves: the composition of the
 * daemon. Modules are imported when they are needed.
 */
export const builtins: ReadonlyMap<string, BuiltinPlugin> = new Map<string, BuiltinPlugin>([
  ["journal-sqlite", { default: true, load: () => import("./journal-sqlite/index.js") }],
  ["journal-memory", { default: false, load: () => import("./journal-memory/index.js") }],
  ["state-sqlite", { default: true, load: () => import("./state-sqlite/index.js") }],
  ["state-redis", { default: false, load: () => import("./state-redis/index.js") }],
  ["state-postgres", { default: false, load: () => import("./state-postgres/index.js") }],
  ["state-memory", { default: false, load: () => import("./state-memory/index.js") }],
  ["bus-mqtt", { default: true, load: () => import("./bus-mqtt/index.js") }],
  ["bus-memory", { default: false, load: () => import("./bus-memory/index.js") }],
  ["bus-redis", { default: false, load: () => import("./bus-redis/index.js") }],
  ["bus-nats", { default: false, load: () => import("./bus-nats/index.js") }],
  ["template-source-file", { default: true, load: () => import("./template-source-file/index.js") }],
  ["template-source-http", { default: false, load: () => import("./template-source-http/index.js") }],
  ["start-gate-master-first", { default: true, load: () => import("./start-gate-master-first/index.js") }],
  [
    "restart-policy-intensity",
    { default: true, sections: ["restart"], load: () => import("./restart-policy-intensity/index.js") },
  ],
  [
    "policy-resources",
    { default: true, sections: ["resources"], load: () => import("./policy-resources/index.js") },
  ],
  [
    "policy-children",
    { default: true, sections: ["children", "detach"], load: () => import("./policy-children/index.js") },
  ],
  ["policy-budget", { default: true, sections: ["budget"], load: () => import("./policy-budget/index.js") }],
  [
    "policy-memory-pressure",
    { default: true, sections: ["priority"], load: () => import("./policy-memory-pressure/index.js") },
  ],
  [
    "spawner-process",
    { default: true, sections: ["stop", "logs"], load: () => import("./spawner-process/index.js") },
  ],
  ["sampler-runner", { default: true, load: () => import("./sampler-runner/index.js") }],
  ["sampler-pidusage", { default: true, load: () => import("./sampler-pidusage/index.js") }],
  ["sampler-procfs", { default: false, load: () => import("./sampler-procfs/index.js") }],
  ["authenticator-tokens", { default: true, load: () => import("./authenticator-tokens/index.js") }],
  ["authorizer-tree", { default: true, load: () => import("./authorizer-tree/index.js") }],
  ["operation-agents", { default: true, load: () => import("./operation-agents/index.js") }],
  ["operation-templates", { default: true, load: () => import("./operation-templates/index.js") }],
  ["operation-state", { default: true, load: () => import("./operation-state/index.js") }],
  ["operation-bus", { default: true, load: () => import("./operation-bus/index.js") }],
  ["operation-daemon", { default: true, load: () => import("./operation-daemon/index.js") }],
  ["agent-manager-tool", { default: true, load: () => import("./agent-manager-tool/index.js") }],
  [
    "probe-runner",
    {
      default: true,
      sections: ["startup", "readiness", "liveness", "progress"],
      load: () => import("./probe-runner/index.js"),
    },
  ],
  ["probe-pid", { default: true, load: () => import("./probe-pid/index.js") }],
  ["probe-heartbeat", { default: true, load: () => import("./probe-heartbeat/index.js") }],
  ["probe-notify", { default: true, load: () => import("./probe-notify/index.js") }],
  ["probe-http", { default: true, load: () => import("./probe-http/index.js") }],
  ["probe-tcp", { default: true, load: () => import("./probe-tcp/index.js") }],
  ["probe-exec", { default: true, load: () => import("./probe-exec/index.js") }],
  ["probe-log", { default: true, load: () => import("./probe-log/index.js") }],
  ["http-api", { default: true, load: () => import("./http-api/index.js") }],
]);

/**
 * Former names of built-in plugins, and the plugins that do their work now. A config may go on using them; the loader
 * says what to write instead. Options go to the first; `false` leaves out all.
 */
export const renamedBuiltins: ReadonlyMap<string, readonly [string, ...string[]]> = new Map([
  ["tokens", ["authenticator-tokens", "authorizer-tree"]],
  ["budget", ["policy-budget"]],
  ["resource-policy", ["policy-resources"]],
  ["host-pressure", ["policy-memory-pressure"]],
  ["restart-policy", ["restart-policy-intensity"]],
  ["health-checker", ["probe-runner"]],
  ["templates-file", ["template-source-file"]],
  ["templates-http", ["template-source-http"]],
]);

/** Which of them provides which template section: a template may have one whose plugin is left out. */
export const sectionOrigins: ReadonlyMap<string, string> = new Map(
  [...builtins].flatMap(([plugin, { sections = [] }]) =>
    sections.map((section) => [section, plugin] as const),
  ),
);
