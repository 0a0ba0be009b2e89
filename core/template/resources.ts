import { z } from "zod";
import { type AgentLimits, LIMIT_NAMES, type LimitAction, type LimitName } from "../contracts/agent.js";
import type { OsLimits } from "../contracts/spawner.js";
import type { ResourceRules } from "../contracts/template.js";
import { duration, percent, size } from "./unit-schemas.js";

const MIB = 2 ** 20;
const WHOLE = ["warn", "stop", "restart"] as const;

/**
 * What may follow when a limit is exceeded. Only CPU can be slowed down. Of open files nothing more than
 * the refusal by the operating system is known.
 */
const onExceed = z
  .strictObject({
    memory_max: z.enum(WHOLE).optional(),
    cpu_max: z.enum(["warn", "throttle", "stop", "restart"]).optional(),
    pids_max: z.enum(WHOLE).optional(),
    run_time_max: z.enum(WHOLE).optional(),
    idle_max: z.enum(WHOLE).optional(),
  })
  .meta({ description: "What is done about each limit; one word is for all of them." });

const time = () => duration().refine((ms) => ms >= 1, "expected more than nothing");

/** The section `resources` of templates, and of the config's `defaults`. */
export const resourcesSchema = z.strictObject({
  memory_max: size()
    .refine((bytes) => bytes >= MIB, "expected at least 1MiB")
    .optional(),
  cpu_max: percent()
    .refine((share) => share >= 1, "expected at least 1%")
    .optional(),
  pids_max: z.int().min(1).max(4_194_304).optional(),
  // With fewer a program can hardly be loaded.
  open_files_max: z.int().min(16).max(1_073_741_816).optional(),
  run_time_max: time().optional(),
  idle_max: time().optional(),
  on_exceed: z.union([z.enum(WHOLE), onExceed]).optional(),
});

type ActingLimit = keyof z.output<typeof onExceed>;

/** What is done where nothing is said. */
const ACTIONS: Readonly<Record<ActingLimit, LimitAction>> = {
  memory_max: "restart",
  cpu_max: "throttle",
  pids_max: "warn",
  run_time_max: "stop",
  idle_max: "stop",
};

/** The limits of one run: each by the first of `rules` that sets it, as if somebody had to look after it. */
export function limitsOf(...rules: (ResourceRules | undefined)[]): AgentLimits {
  const limits: AgentLimits = {};
  for (const name of LIMIT_NAMES) {
    const value = rules.find((it) => it?.[name] !== undefined)?.[name];
    if (value === undefined) continue;
    const action = actionOf(name, rules);
    limits[name] = {
      value: IN_SECONDS.includes(name) ? value / 1_000 : value,
      held_by: "polling",
      ...(action === undefined ? {} : { on_exceed: action }),
    };
  }
  return limits;
}

const IN_SECONDS: readonly LimitName[] = ["run_time_max", "idle_max"];

function actionOf(name: LimitName, rules: readonly (ResourceRules | undefined)[]): LimitAction | undefined {
  if (name === "open_files_max") return undefined;
  for (const said of rules.map((it) => it?.on_exceed)) {
    const action = typeof said === "string" ? said : said?.[name];
    if (action !== undefined) return action;
  }
  return ACTIONS[name];
}

/**
 * Those limits that the operating system shall hold: where its means are no harsher than what was asked
 * for. It kills for memory, slows down for CPU, and refuses more processes and files.
 */
export function osLimitsOf({ memory_max, cpu_max, pids_max, open_files_max }: AgentLimits): OsLimits {
  return {
    ...(memory_max && memory_max.on_exceed !== "warn" ? { memoryBytes: memory_max.value } : {}),
    ...(cpu_max?.on_exceed === "throttle" ? { cpuPercent: cpu_max.value } : {}),
    ...(pids_max ? { pids: pids_max.value } : {}),
    ...(open_files_max ? { openFiles: open_files_max.value } : {}),
  };
}

const NAMES: Readonly<Record<keyof OsLimits, LimitName>> = {
  memoryBytes: "memory_max",
  cpuPercent: "cpu_max",
  pids: "pids_max",
  openFiles: "open_files_max",
};

/**
 * The limits with what the spawner said that the operating system holds, also what a policy had it hold.
 * `undefined` when there are none.
 */
export function heldBy(limits: AgentLimits = {}, held: OsLimits = {}): AgentLimits | undefined {
  const all: AgentLimits = {};
  for (const name of LIMIT_NAMES) {
    const limit = limits[name];
    if (limit) all[name] = { ...limit, held_by: "polling" };
  }
  for (const key of Object.keys(NAMES) as (keyof OsLimits)[]) {
    const [name, value] = [NAMES[key], held[key]];
    if (value !== undefined) all[name] = { ...all[name], value, held_by: "kernel" };
  }
  return Object.keys(all).length === 0 ? undefined : all;
}
