import type { FastifyReply, FastifyRequest } from "fastify";
import {
  type Authenticator,
  type CallOptions,
  type Clock,
  type Dispatch,
  isOpenStarryError,
  OpenStarryError,
  type Operation,
  type StreamItem,
} from "../../core/index.js";
import type { Caller } from "./bearer.js";
import { assembleInput, parseQuery } from "./input.js";
import type { Route } from "./routes.js";
import { createStreams } from "./streams.js";

export interface CallsOptions {
  dispatch: Dispatch;
  authenticator: Authenticator;
  clock: Clock;
  maxStreams: number;
}

/** From a routed request to its answer. */
export interface Calls {
  answer(route: Route, caller: Caller, request: FastifyRequest, reply: FastifyReply): Promise<unknown>;
  endStreams(): void;
  /** Ends what still waits (long polls): it is answered with `daemon_stopping`. */
  abort(): void;
}

/** One for all: to make an exception with its stack for every request would be a part of its cost. */
const OVER = new DOMException("the request is over", "AbortError");

export function createCalls({ dispatch, authenticator, clock, maxStreams }: CallsOptions): Calls {
  const underWay = new Set<AbortController>();
  /** Requests under way by token. */
  const waiting = new Map<string, number>();
  const streams = createStreams({
    clock,
    maxPerToken: maxStreams,
    isValid: (token) => authenticator.authenticate(token) !== undefined,
  });
  let stopping = false;

  /** Aborted when the connection is gone or the answer complete, and at the daemon's stop. */
  const callSignal = (reply: FastifyReply): AbortSignal => {
    const call = new AbortController();
    underWay.add(call);
    reply.raw.once("close", () => {
      underWay.delete(call);
      call.abort(OVER);
    });
    return call.signal;
  };
  /** One agent's long polls must not take all the connections there are. */
  const countIn = ({ principal, token }: Caller, reply: FastifyReply) => {
    if (principal.kind !== "agent" || token === undefined) return;
    const count = waiting.get(token) ?? 0;
    if (count >= maxStreams) {
      throw new OpenStarryError("too_many_streams", {
        detail: `${principal.id} has ${count} requests under way, and may have no more`,
        hint: "wait for some of them to be answered first",
      });
    }
    waiting.set(token, count + 1);
    reply.raw.once("close", () => {
      const left = (waiting.get(token) ?? 1) - 1;
      if (left > 0) waiting.set(token, left);
      else waiting.delete(token);
    });
  };
  const inWords = (error: unknown): unknown => {
    const isOwn = isOpenStarryError(error) && error.code !== "timeout";
    return stopping && !isOwn ? stoppingError() : error;
  };
  return {
    async answer(route, caller, request, reply) {
      countIn(caller, reply);
      const input = inputOf(route, request);
      const options = { ...headerOptions(request), signal: callSignal(reply) };
      let output: unknown;
      try {
        output = await dispatch(route.operation.name, input, caller.principal, options);
      } catch (error) {
        throw inWords(error);
      }
      if (!isStream(output)) return sendOutput(route.operation, output, reply);
      reply.header("content-type", route.operation.http?.contentType ?? "text/event-stream");
      if (request.method !== "HEAD") return reply.send(await streams.open(output, caller, peerOf(request)));
      await output[Symbol.asyncIterator]().return?.();
      return reply.send();
    },
    endStreams: streams.endAll,
    abort() {
      stopping = true;
      for (const call of underWay) call.abort(stoppingError());
    },
  };
}

function sendOutput({ http }: Operation, output: unknown, reply: FastifyReply) {
  reply.code(http?.status?.(output) ?? (output === undefined ? 204 : 200));
  if (output === undefined) return reply.send();
  const etag = http?.etag?.(output);
  if (etag !== undefined) reply.header("etag", etag);
  reply.header("content-type", http?.contentType ?? "application/json");
  const isRaw =
    http?.contentType !== undefined && (typeof output === "string" || output instanceof Uint8Array);
  return reply.send(isRaw ? output : JSON.stringify(output));
}

function inputOf(route: Route, request: FastifyRequest): Record<string, unknown> {
  const params = Object.entries(request.params as Record<string, string>);
  const path = new Map(params.map(([key, text]) => [key === "*" ? (route.rest ?? key) : key, text]));
  const mark = request.url.indexOf("?");
  const query = parseQuery(mark < 0 ? "" : request.url.slice(mark + 1));
  const body = (request.body ?? {}) as Record<string, unknown>;
  return assembleInput({ path, query, body }, route.schema);
}

/** What a caller may say in headers besides its token. */
function headerOptions(request: FastifyRequest): CallOptions {
  const idempotencyKey = printable(request, "idempotency-key");
  const lastEventId = printable(request, "last-event-id");
  const ifMatch = printable(request, "if-match");
  const ifNoneMatch = printable(request, "if-none-match");
  return {
    ...(ifMatch === undefined ? {} : { ifMatch }),
    ...(ifNoneMatch === undefined ? {} : { ifNoneMatch }),
    ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
    ...(lastEventId === undefined ? {} : { lastEventId }),
  };
}

function printable(request: FastifyRequest, name: string): string | undefined {
  const value = request.headers[name];
  if (value === undefined) return undefined;
  if (typeof value === "string" && /^[\x20-\x7e]{1,255}$/.test(value)) return value;
  throw new OpenStarryError("input_invalid", {
    detail: `the header ${name} is not 1 to 255 printable ASCII characters`,
    hint: "shorten it or leave it out",
  });
}

/** The address of the other end; never what a header says. */
export function peerOf(request: FastifyRequest): string {
  return request.raw.socket.remoteAddress ?? "unix";
}

function stoppingError(): OpenStarryError {
  return new OpenStarryError("daemon_stopping", {
    detail: "the daemon stops or restarts, and what was waited for did not happen before",
    hint: "ask again in a moment",
  });
}

function isStream(output: unknown): output is AsyncIterable<StreamItem> {
  return typeof output === "object" && output !== null && Symbol.asyncIterator in output;
}
