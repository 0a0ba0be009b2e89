/**
 * Every error code of the project, with the HTTP status and the exit code that it means to a
 * client. Codes are public: they are never reused for something else.
 */
export const ERROR_CODES = {
  // what was asked for is wrong
  input_invalid: { status: 400, exit: 2, title: "The request is not valid" },
  host_forbidden: { status: 403, exit: 5, title: "This Host header is not served here" },
  origin_forbidden: { status: 403, exit: 5, title: "Requests from web pages are not served here" },
  unauthenticated: { status: 401, exit: 5, title: "A valid token is needed" },
  forbidden: { status: 403, exit: 5, title: "This token may not do that" },
  rate_limited: { status: 429, exit: 5, title: "Too many failed attempts" },
  too_many_streams: { status: 429, exit: 5, title: "Too many streams are open" },
  not_found: { status: 404, exit: 4, title: "There is nothing at this address" },
  method_not_allowed: { status: 405, exit: 2, title: "This address does not take that method" },
  body_too_large: { status: 413, exit: 2, title: "The request body is too large" },
  media_type_unsupported: { status: 415, exit: 2, title: "Only JSON is accepted" },
  operation_unknown: { status: 404, exit: 4, title: "There is no such operation" },
  // agents
  agent_not_found: { status: 404, exit: 4, title: "There is no such agent" },
  agent_exists: { status: 409, exit: 5, title: "An agent of this id exists" },
  agent_not_running: { status: 409, exit: 5, title: "The agent has no live process" },
  agent_is_deleted: { status: 409, exit: 5, title: "The agent is being deleted" },
  run_is_over: { status: 409, exit: 5, title: "That run is over" },
  result_not_found: { status: 404, exit: 4, title: "The agent left no result" },
  quota_exceeded: { status: 409, exit: 5, title: "No more agents are allowed here" },
  idempotency_mismatch: { status: 422, exit: 5, title: "This Idempotency-Key was used for another request" },
  throttle_unavailable: { status: 409, exit: 5, title: "The agent's CPU cannot be slowed down" },
  managed_by_plugin: { status: 409, exit: 5, title: "A plugin runs this service" },
  tree_survived: { status: 500, exit: 1, title: "Some processes of the agent could not be ended" },
  // templates
  template_not_found: { status: 422, exit: 4, title: "There is no such template" },
  template_invalid: { status: 422, exit: 2, title: "The template is not valid" },
  template_read_only: { status: 409, exit: 5, title: "This template cannot be changed here" },
  params_invalid: { status: 422, exit: 2, title: "The parameters do not fit the template" },
  // spawning
  env_missing: { status: 422, exit: 5, title: "A variable that the template passes on is not set" },
  env_forbidden: { status: 400, exit: 2, title: "This variable may not be set here" },
  command_not_found: { status: 422, exit: 5, title: "The command was not found" },
  command_not_executable: { status: 422, exit: 5, title: "The command cannot be executed" },
  cwd_invalid: { status: 422, exit: 5, title: "The working folder cannot be used" },
  user_invalid: { status: 422, exit: 5, title: "The user cannot be used" },
  spawner_not_found: { status: 422, exit: 5, title: "There is no such spawner" },
  spawn_failed: { status: 500, exit: 1, title: "The process could not be started" },
  spawn_vetoed: { status: 409, exit: 5, title: "A policy refused the start" },
  // state and bus
  state_not_found: { status: 404, exit: 4, title: "There is no such value" },
  state_conflict: { status: 409, exit: 5, title: "The value is not what the write expected" },
  state_unavailable: { status: 503, exit: 1, title: "The state store cannot be reached" },
  delivery_is_over: { status: 409, exit: 5, title: "That delivery is over" },
  bus_unavailable: { status: 503, exit: 1, title: "The message bus cannot be reached" },
  // the daemon
  config_invalid: { status: 422, exit: 2, title: "The config is not valid" },
  config_not_found: { status: 422, exit: 2, title: "The config file was not found" },
  plugin_not_found: { status: 422, exit: 2, title: "The plugin was not found" },
  plugin_invalid: { status: 422, exit: 2, title: "The plugin is not valid" },
  plugin_conflict: { status: 422, exit: 2, title: "The plugins do not fit together" },
  plugin_failed: { status: 500, exit: 1, title: "A plugin failed" },
  slot_empty: { status: 501, exit: 1, title: "No plugin provides this" },
  hook_failed: { status: 500, exit: 1, title: "A plugin's hook failed" },
  journal_unavailable: { status: 503, exit: 1, title: "The journal cannot be written" },
  platform_unsupported: { status: 500, exit: 1, title: "The daemon does not run on this system" },
  home_unusable: { status: 500, exit: 1, title: "The daemon's folder cannot be used" },
  port_in_use: { status: 500, exit: 1, title: "The port is taken" },
  daemon_running: { status: 409, exit: 5, title: "A daemon is running on this home" },
  daemon_not_running: { status: 503, exit: 3, title: "No daemon is running" },
  daemon_busy: { status: 503, exit: 5, title: "The daemon is starting or being replaced" },
  restart_unavailable: { status: 409, exit: 5, title: "This daemon cannot replace itself" },
  daemon_stopping: { status: 503, exit: 5, title: "The daemon is stopping" },
  timeout: { status: 504, exit: 1, title: "It took too long" },
  internal: { status: 500, exit: 1, title: "The daemon made a mistake" },
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

  get status(): number {
    return ERROR_CODES[this.code].status;
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

/** An error as `application/problem+json` (RFC 9457) with `code` and `hint`. */
export function toProblem(error: OpenStarryError): Record<string, unknown> {
  const { status, title } = ERROR_CODES[error.code];
  return {
    ...error.data,
    type: `urn:openstarry:error:${error.code}`,
    title,
    status,
    code: error.code,
    detail: error.message,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  };
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
