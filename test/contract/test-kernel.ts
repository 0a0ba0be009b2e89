import {
  type Authorizer,
  authorizer,
  type Clock,
  type ConfigInput,
  type ConfiguredPlugin,
  configSchema,
  type Kernel,
  type KernelLimits,
  type RestartPolicy,
  systemClock,
} from "../../core/index.js";
import { createKernel } from "../../core/kernel.js";
import {
  type MemoryJournalState,
  type MemorySpawner,
  memoryJournal,
  memoryJournalState,
  memoryPlugin,
  memorySpawner,
  memoryTemplates,
} from "./memory-plugins.js";
import { memorySectionsPlugin } from "./memory-sections.js";
import { createRecorder, type LoggedLine } from "./recorder.js";

export interface TestKernelOptions {
  /** Besides the memory plugin, which provides all that the kernel needs, and template sections that it reads. */
  plugins?: readonly ConfiguredPlugin[];
  clock?: Clock;
  config?: ConfigInput;
  /** Template documents by id; `command` is filled in. */
  templates?: Record<string, Record<string, unknown>>;
  /** Default: restarts at once after a failure, until `max_restarts` are used up. */
  policy?: RestartPolicy;
  /** Default: a plugin's, else `operatorOnly`: agents may do nothing. */
  authorizer?: Authorizer;
  /** What an earlier kernel left behind. */
  state?: MemoryJournalState;
  spawner?: MemorySpawner;
  limits?: Partial<KernelLimits>;
  fresh?: boolean;
  dataDir?: string;
  sectionOrigins?: ReadonlyMap<string, string>;
}

export interface TestKernel extends Kernel {
  readonly spawner: MemorySpawner;
  readonly state: MemoryJournalState;
  /** What was logged: level, fields, message. */
  readonly logged: readonly LoggedLine[];
}

/**
 * A kernel without processes, sockets or files, for trying plugins: real state machine, real hooks,
 * agents that are objects.
 */
export function createTestKernel(options: TestKernelOptions = {}): TestKernel {
  const state = options.state ?? memoryJournalState();
  const spawner = options.spawner ?? memorySpawner();
  const { log, logged } = createRecorder();
  const memory = memoryPlugin({
    journal: memoryJournal(state),
    spawner,
    templates: memoryTemplates(options.templates ?? { Plain: {} }),
    policy: options.policy,
    authorizer: options.plugins?.some(providesAuthorizer) ? false : options.authorizer,
  });
  const plugins = [memory(), ...(options.plugins ?? []), memorySectionsPlugin()];
  const kernel = createKernel({
    plugins: plugins.map((plugin, index) => ({ ...plugin, origin: "config", place: `plugins[${index}]` })),
    config: configSchema.parse(options.config ?? {}),
    dataDir: options.dataDir ?? "/nonexistent",
    version: "0.0.0-test",
    pid: 1,
    log,
    clock: options.clock ?? systemClock,
    sectionOrigins: options.sectionOrigins,
    ...(options.limits ? { limits: options.limits } : {}),
    ...(options.fresh === undefined ? {} : { fresh: options.fresh }),
  });
  return Object.assign(kernel, { spawner, state, logged });
}

function providesAuthorizer({ definition }: ConfiguredPlugin): boolean {
  return definition.provides?.some(({ id }) => id === authorizer.id) ?? false;
}
