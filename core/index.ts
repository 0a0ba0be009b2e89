/**
 * What a plugin author and a config import. Everything here is public; what is not here is not.
 */

export { isLive } from "./agents/state.js";
export { parseData } from "./config/data-text.js";
export { type ConfigInput, configSchema, defineConfig, type PluginEntry } from "./config/define-config.js";
export { importDefault, importModule } from "./config/import-module.js";
export { readTextFile } from "./config/text-file.js";
export * from "./contracts/admission.js";
export * from "./contracts/agent.js";
export * from "./contracts/agent-control.js";
export * from "./contracts/agent-lookup.js";
export * from "./contracts/agent-reports.js";
export * from "./contracts/authenticator.js";
export * from "./contracts/authorizer.js";
export type { Clock } from "./contracts/clock.js";
export type { Config } from "./contracts/config.js";
export {
  ERROR_CODES,
  type ErrorCode,
  isOpenStarryError,
  OpenStarryError,
  SpawnDeferred,
  SpawnVetoed,
  toOpenStarryError,
} from "./contracts/errors.js";
export * from "./contracts/events.js";
export type {
  Denial,
  HookName,
  HookTap,
  HookTaps,
  HookTypes,
  OperationRequest,
  ResourceSample,
} from "./contracts/hooks.js";
export * from "./contracts/journal.js";
export * from "./contracts/journal-access.js";
export * from "./contracts/message-bus.js";
export type { CallOptions, Dispatch } from "./contracts/operation.js";
export * from "./contracts/operation.js";
export * from "./contracts/plugin.js";
export type { ChosenProbe } from "./contracts/probe.js";
export * from "./contracts/probe.js";
export * from "./contracts/restart-policy.js";
export * from "./contracts/sampler.js";
export * from "./contracts/service.js";
export { type Arity, defineSlot, type Provided, type Slot } from "./contracts/slot.js";
export * from "./contracts/spawner.js";
export { STAGES, type Stage } from "./contracts/stages.js";
export type {
  InferInput,
  InferOutput,
  StandardIssue,
  StandardResult,
  StandardSchema,
} from "./contracts/standard-schema.js";
export * from "./contracts/start-gate.js";
export * from "./contracts/state-store.js";
export * from "./contracts/stored-agent.js";
export * from "./contracts/template.js";
export * from "./contracts/template-section.js";
export * from "./contracts/template-source.js";
export type { Kernel, KernelLimits, KernelOptions } from "./kernel.js";
export { rfc3339, sleep, systemClock } from "./lib/clock.js";
export { withDeadline } from "./lib/deadline.js";
export { errorText } from "./lib/error-text.js";
export { timeOfUuidv7 } from "./lib/ids.js";
export { nearest } from "./lib/nearest.js";
export { formatDuration, formatSize, parseDuration, parseSize } from "./lib/units.js";
export { validate, validateSync } from "./lib/validate.js";
export { envSchema, idSchema, labelsSchema } from "./template/keys.js";
export { createTemplateLanguage, type TemplateLanguage } from "./template/language.js";
export { paramsJsonSchema } from "./template/params.js";
export { fillPlaceholders, hasPlaceholders } from "./template/placeholders.js";
export { resourcesSchema } from "./template/resources.js";
export { duration, percent, size } from "./template/unit-schemas.js";
