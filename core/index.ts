/**
 * What a plugin author and a config import. Everything here is public; what is not here is not.
 */
export type {
  AgentCommands,
  AgentDetails,
  CreateAgent,
  ForRun,
  Intent,
  ProgressStep,
} from "./agent-commands.js";
export { isLive } from "./agent-state.js";
export { type Clock, rfc3339, sleep, systemClock } from "./clock.js";
export { parseData } from "./config/data-text.js";
export { importDefault, importModule } from "./config/import-module.js";
export { readTextFile } from "./config/text-file.js";
export * from "./contracts/agent.js";
export * from "./contracts/authenticator.js";
export * from "./contracts/events.js";
export * from "./contracts/journal.js";
export * from "./contracts/message-bus.js";
export * from "./contracts/operation.js";
export * from "./contracts/probe.js";
export * from "./contracts/restart-policy.js";
export * from "./contracts/sampler.js";
export * from "./contracts/service.js";
export * from "./contracts/spawner.js";
export * from "./contracts/state-store.js";
export * from "./contracts/stored-agent.js";
export * from "./contracts/template-source.js";
export {
  type Config,
  type ConfigInput,
  configSchema,
  defineConfig,
  type PluginEntry,
} from "./define-config.js";
export {
  ERROR_CODES,
  type ErrorCode,
  isOpenStarryError,
  nearest,
  OpenStarryError,
  SpawnDeferred,
  SpawnVetoed,
  toOpenStarryError,
  toProblem,
} from "./errors.js";
export type { HookTap, HookTaps } from "./hook-guard.js";
export type { Denial, HookName, HookTypes, OperationRequest, ResourceSample } from "./hooks.js";
export { timeOfUuidv7 } from "./ids.js";
export type { Kernel, KernelLimits, KernelOptions } from "./kernel.js";
export type { CallOptions, Dispatch } from "./operations.js";
export * from "./plugin.js";
export { type Arity, defineSlot, type Provided, type Slot } from "./slots.js";
export { STAGES, type Stage } from "./stages.js";
export type {
  InferInput,
  InferOutput,
  StandardIssue,
  StandardResult,
  StandardSchema,
} from "./standard-schema.js";
export {
  type BudgetRules,
  envSchema,
  idSchema,
  labelsSchema,
  type ProgressRules,
  paramsJsonSchema,
  parseTemplate,
  type RestartRules,
  type Template,
  type TemplateInput,
  templateSchema,
} from "./template.js";
export type { ChosenProbe } from "./template-checks.js";
export { duration, percent, size } from "./unit-schemas.js";
export { formatDuration, formatSize, parseDuration, parseSize } from "./units.js";
export { validate, validateSync } from "./validate.js";
