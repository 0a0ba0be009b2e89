import type { RestartRules } from "./restart-policy.js";
import type { LogRules } from "./spawner.js";

/**
 * The sections of a validated template, by name. Plugins add theirs by declaration merging; those here are what
 * the kernel itself reads.
 */
export interface TemplateSections {
  /** The run is `starting` until it is reported ready, and is ended when that takes longer than `timeoutMs`. */
  readiness?: ReadinessRules;
  restart: RestartRules;
  stop: StopRules;
  logs: LogRules;
  resources?: ResourceRules;
}

export interface ReadinessRules {
  type: string;
  timeoutMs: number;
  /** The options of the probe. */
  [option: string]: unknown;
}

export interface StopRules {
  signal: string;
  graceMs: number;
}

type WholeAction = "warn" | "stop" | "restart";

export interface ResourceRules {
  memory_max?: number;
  cpu_max?: number;
  pids_max?: number;
  open_files_max?: number;
  run_time_max?: number;
  idle_max?: number;
  on_exceed?:
    | WholeAction
    | {
        memory_max?: WholeAction;
        cpu_max?: WholeAction | "throttle";
        pids_max?: WholeAction;
        run_time_max?: WholeAction;
        idle_max?: WholeAction;
      };
}

/** The keys that a template has whatever plugins there are, with their defaults. */
export interface TemplateKeys {
  template_id: string;
  description: string;
  /** A path, or a name that is looked up in `PATH`. */
  command: string;
  args: string[];
  cwd?: string;
  /** The JSON Schema of each parameter. */
  params: Record<string, Record<string, unknown>>;
  env: Record<string, string>;
  pass_env: string[];
  env_file: string[];
  user?: string;
  spawner: string;
  requires: string[];
  success_exit_codes: number[];
  labels: Record<string, string>;
  /** The record is forgotten this long after its end. */
  removeAfterMs?: number;
}

/** A validated template: durations in milliseconds, sizes in bytes, defaults filled in. */
export interface Template extends TemplateKeys, TemplateSections {}

/** The sections of a template as people write them, by name. Plugins add theirs by declaration merging. */
// biome-ignore lint/suspicious/noEmptyInterface: plugins fill it.
export interface TemplateSectionInputs {}

/** A template as people write it, without its id. */
export interface TemplateBody extends TemplateSectionInputs {
  description?: string;
  command: string;
  args?: string[];
  cwd?: string;
  params?: Record<string, Record<string, unknown>>;
  env?: Record<string, string>;
  pass_env?: string[];
  env_file?: string[];
  user?: string;
  spawner?: string;
  requires?: string[];
  success_exit_codes?: number[];
  labels?: Record<string, string>;
  /** A duration with its unit, such as `"24h"`. */
  remove_after?: string;
  /** Sections of plugins whose types are not imported. */
  [section: string]: unknown;
}

/** A template as people write it. */
export interface TemplateInput extends TemplateBody {
  template_id: string;
}
