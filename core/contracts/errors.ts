/**
 * Lists every error code with its title. Codes are public: none is ever reused for something else. What
 * a code means to one transport stands with that transport: HTTP statuses in the plugin `http-api`, exit
 * codes in the command line.
 */
export const ERROR_CODES = {
  // what was asked for is wrong
  input_invalid: "The request is not valid",
  host_forbidden: "This Host header is not served here",
  origin_forbidden: "Requests from web pages are not served here",
  unauthenticated: "A valid token is needed",
  forbidden: "This token may not do that",
  rate_limited: "Too many failed attempts",
  too_many_streams: "Too many streams are open",
  not_found: "There is nothing at this address",
  method_not_allowed: "This address does not take that method",
  body_too_large: "The request body is too large",
  media_type_unsupported: "Only JSON is accepted",
  operation_unknown: "There is no such operation",
  // agents
  agent_not_found: "There is no such agent",
  agent_exists: "An agent of this id exists",
  agent_not_running: "The agent has no live process",
  agent_is_deleted: "The agent is being deleted",
  run_is_over: "That run is over",
  result_not_found: "The agent left no result",
  quota_exceeded: "No more agents are allowed here",
  idempotency_mismatch: "This Idempotency-Key was used for another request",
  throttle_unavailable: "The agent's CPU cannot be slowed down",
  managed_by_plugin: "A plugin runs this service",
  tree_survived: "Some processes of the agent could not be ended",
  // templates
  template_not_found: "There is no such template",
  template_invalid: "The template is not valid",
  template_read_only: "This template cannot be changed here",
  params_invalid: "The parameters do not fit the template",
  // spawning
  env_missing: "A variable that the template passes on is not set",
  env_forbidden: "This variable may not be set here",
  command_not_found: "The command was not found",
  command_not_executable: "The command cannot be executed",
  cwd_invalid: "The working folder cannot be used",
  user_invalid: "The user cannot be used",
  spawner_not_found: "There is no such spawner",
  spawn_failed: "The process could not be started",
  spawn_vetoed: "A policy refused the start",
  // state and bus
  state_not_found: "There is no such value",
  state_conflict: "The value is not what the write expected",
  state_unavailable: "The state store cannot be reached",
  delivery_is_over: "That delivery is over",
  bus_unavailable: "The message bus cannot be reached",
  // the daemon
  config_invalid: "The config is not valid",
  config_not_found: "The config file was not found",
  plugin_not_found: "The plugin was not found",
  plugin_invalid: "The plugin is not valid",
  plugin_conflict: "The plugins do not fit together",
  plugin_failed: "A plugin failed",
  slot_empty: "No plugin provides this",
  hook_failed: "A plugin's hook failed",
  journal_unavailable: "The journal cannot be written",
  platform_unsupported: "The daemon does not run on this system",
  home_unusable: "The daemon's folder cannot be used",
  port_in_use: "The port is taken",
  daemon_running: "A daemon is running on this home",
  daemon_not_running: "No daemon is running",
  daemon_busy: "The daemon is starting or being replaced",
  restart_unavailable: "This daemon cannot replace itself",
  daemon_stopping: "The daemon is stopping",
  timeout: "It took too long",
  internal: "The daemon made a mistake",
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface ErrorText {
  /** What happened: who, what, which value was met. */
  detail: string;
  /** What to do next, in a sentence that a person or a model can act on. */
  hint?: string;
  cause?: unknown;
  /** Machine-readable extras, such as `survivors` or `retry_after_s`. */
  data?: Record<string, unknown>;
}

const BRAND = Symbol.for("openstarry.error");

/** The one error class. Recognised by `isOpenStarryError`, not by `instanceof` (nested copies). */
export class OpenStarryError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly data: Record<string, unknown>;
  readonly [BRAND] = true;

  constructor(code: ErrorCode, text: ErrorText) {
    super(text.detail, text.cause === undefined ? undefined : { cause: text.cause });
    this.name = "OpenStarryError";
    this.code = code;
    this.hint = text.hint;
    this.data = text.data ?? {};
  }
}

export function isOpenStarryError(error: unknown): error is OpenStarryError {
  return typeof error === "object" && error !== null && BRAND in error;
}

/** Anything thrown, as the error that a client may see. A stranger's stack and text stay inside. */
export function toOpenStarryError(error: unknown): OpenStarryError {
  if (isOpenStarryError(error)) return error;
  return new OpenStarryError("internal", {
    detail: "the daemon failed to do this; its log says more",
    hint: "look into the daemon's log, and report it if it stays",
    cause: error,
  });
}

/** A `beforeSpawn` tap throws this to refuse a start: the agent is `failed`, cause `policy`. */
export class SpawnVetoed extends OpenStarryError {
  constructor(reason: string) {
    super("spawn_vetoed", { detail: reason });
    this.name = "SpawnVetoed";
  }
}

/** A `beforeSpawn` tap throws this to put a start off: the agent waits in `pending`. */
export class SpawnDeferred extends OpenStarryError {
  constructor(reason: string, options: { retryAfterMs: number }) {
    super("spawn_vetoed", { detail: reason, data: { retryAfterMs: options.retryAfterMs } });
    this.name = "SpawnDeferred";
  }
}

/** Of an error that may come from another copy of this package. */
export function isSpawnDeferred(
  error: unknown,
): error is OpenStarryError & { data: { retryAfterMs: number } } {
  return isOpenStarryError(error) && error.name === "SpawnDeferred";
}

export function isSpawnVetoed(error: unknown): error is OpenStarryError {
  return isOpenStarryError(error) && error.name === "SpawnVetoed";
}
