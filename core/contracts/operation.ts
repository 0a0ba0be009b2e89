import type { Principal } from "./authenticator.js";
import { defineSlot } from "./slot.js";
import type { StandardSchema } from "./standard-schema.js";

/**
 * What an operation is about. The slot `authorizer` turns scope and principal into a verdict.
 *
 * `public`: no token needed. `any`: any valid token. `template:read`. `agent:list`: only what the
 * principal may see comes back. `agent:read`, `agent:control`, `agent:report`: about
 * `input.agent_id`. `agent:start`. `state:read`, `state:write`: about `input.namespace`.
 * `bus:publish`: about `input.topic`. `bus:subscribe`: about `input.filter`. `operator`: nobody else.
 */
export type Scope =
  | "public"
  | "any"
  | "template:read"
  | "agent:list"
  | "agent:read"
  | "agent:report"
  | "agent:control"
  | "agent:start"
  | "state:read"
  | "state:write"
  | "bus:publish"
  | "bus:subscribe"
  | "operator";

export interface OperationCall {
  readonly principal: Principal;
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
  /** The caller's `Idempotency-Key`. */
  readonly idempotencyKey?: string;
  /** Where a stream is to resume: the caller's `Last-Event-ID`. */
  readonly lastEventId?: string;
  /** The caller's `If-Match` and `If-None-Match`, as they stand. */
  readonly ifMatch?: string;
  readonly ifNoneMatch?: string;
}

/** One item of a stream. */
export interface StreamItem {
  id?: string;
  event?: string;
  /** Absent: nothing happened, only `id` is where the stream stands now. */
  data?: unknown;
}

/** How a language model calls an operation. */
export interface OperationTool {
  /** `group:verb`, as in `agent:start`; where a name may hold no colon, `agent_start`. */
  readonly name: string;
  readonly title: string;
  /** Tells the model what the tool does and when to use it. Default: the operation's summary. */
  readonly description?: string;
  /** `read` changes nothing, `write` may, `destructive` ends work in progress. */
  readonly effect: "read" | "write" | "destructive";
  /** False: the same call again does something again. Default true. */
  readonly idempotent?: boolean;
  /** What the model hands over. Default: the operation's own input. */
  readonly input?: StandardSchema;
  /** Whether the model may choose the size of the answer. Default: for `read`. */
  readonly sizable?: boolean;
}

/**
 * Something that can be asked of the daemon. HTTP routes, the OpenAPI document, the definitions of tools
 * and the access test matrix are derived from the table of these.
 */
export interface Operation<I = Record<string, unknown>, O = unknown> {
  /** `noun.verb`, as in `agents.create`. */
  readonly name: string;
  /** One sentence. */
  readonly summary: string;
  readonly scope: Scope;
  /** An object schema. Without Standard JSON Schema it is described as a free-form object. */
  readonly input: StandardSchema<unknown, I>;
  /** Describes the answer; not checked at run time. */
  readonly output?: StandardSchema;
  readonly http?: {
    readonly method: "GET" | "POST" | "PUT" | "DELETE";
    /** With `{name}` for parts taken from the path; `{name*}` takes the rest, slashes included. */
    readonly path: string;
    /** 200 when absent. */
    readonly status?: (output: O) => number;
    /** The `ETag` of an answer, quotes included. */
    readonly etag?: (output: O) => string;
    /** Answers are sent as server-sent events when the handler answers an AsyncIterable. */
    readonly contentType?: string;
  };
  /** The tools that a language model calls it by. Absent: it is no tool. */
  readonly tools?: readonly OperationTool[];
  /** Answers, or streams: an AsyncIterable of StreamItem. */
  handler(input: I, call: OperationCall): Promise<O | AsyncIterable<StreamItem>>;
}

export const operation = defineSlot<Operation<never>, "many">("operation", "many");

/** Keeps an operation's types together where it is written down. */
export function defineOperation<I, O>(definition: Operation<I, O>): Operation<never> {
  return definition as unknown as Operation<never>;
}

/** What a caller may say besides the input. */
export type CallOptions = Partial<Omit<OperationCall, "principal">>;

/** Validates, asks the authorizer and `onRequest`, runs the handler. The only way to any operation. */
export type Dispatch = (
  name: string,
  input: unknown,
  principal: Principal,
  options?: CallOptions,
) => Promise<unknown>;
