import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Authenticator, Clock, Dispatch, Logger, Operation } from "../../core/index.js";
import { type Caller, createBearer } from "./bearer.js";
import { type Calls, createCalls, peerOf } from "./calls.js";
import { parseJsonBody } from "./json-body.js";
import { headersOf, mediaTypeError, toApiError, toProblem } from "./problems.js";
import { explainMiss, type Route, routesOf } from "./routes.js";
import { HTTP_STATUSES } from "./statuses.js";

export interface AppOptions {
  operations: Iterable<Operation>;
  dispatch: Dispatch;
  authenticator: Authenticator;
  clock: Clock;
  log: Logger;
  bodyLimit: number;
  maxStreams: number;
}

/** The API without its listeners. */
export interface App extends Pick<Calls, "endStreams" | "abort"> {
  readonly fastify: FastifyInstance;
}

/** The one content type that is read; fastify's own matching is more generous. */
const JSON_TYPE = /^application\/json\s*(;\s*charset="?utf-8"?\s*)?$/i;

/** Routes out of operations, on fastify, which is loaded here. */
export async function createApp(options: AppOptions): Promise<App> {
  const { default: createFastify } = await import("fastify");
  const routes = routesOf(options.operations);
  const calls = createCalls(options);
  const callers = createCallers(options);
  const sendError = errorSender(options);

  const fastify = createFastify({
    logger: false,
    bodyLimit: options.bodyLimit,
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 255 },
    frameworkErrors: (error, _request, reply) => sendError(error, reply),
  });
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser("application/json", { parseAs: "buffer" }, async (_: unknown, body: Buffer) =>
    parseJsonBody(body),
  );
  fastify.setErrorHandler((error, _request, reply) => sendError(error, reply));
  fastify.setNotFoundHandler((request, reply) => {
    const { error, allow } = explainMiss(request.method, request.url.split("?", 1)[0] ?? "/", routes);
    if (allow !== undefined) reply.header("allow", allow);
    sendError(error, reply);
  });
  fastify.addHook("onRequest", async (request) => callers.identify(request));
  fastify.addHook("onResponse", async (request, reply) => {
    const { method, routeOptions } = request;
    const fields = { method, route: routeOptions.url, status: reply.statusCode, peer: peerOf(request) };
    options.log.debug({ ...fields, principal: callers.of(request).principal.id }, "answered");
  });
  for (const route of routes) {
    fastify.route({
      method: route.method === "GET" ? ["GET", "HEAD"] : route.method,
      url: route.url,
      onRequest: (request: FastifyRequest) => admit(route, request, callers.of(request), options.dispatch),
      handler: (request: FastifyRequest, reply: FastifyReply) =>
        calls.answer(route, callers.of(request), request, reply),
    });
  }
  await fastify.ready();
  return { fastify, endStreams: calls.endStreams, abort: calls.abort };
}

/** Refuses what can be refused before the body is read. */
async function admit(
  { operation }: Route,
  request: FastifyRequest,
  { principal }: Caller,
  dispatch: Dispatch,
): Promise<void> {
  // In the words of every other refusal: this one rejects.
  if (principal.kind === "anonymous" && operation.scope !== "public") {
    await dispatch(operation.name, undefined, principal);
  }
  if (hasBody(request) && !JSON_TYPE.test(request.headers["content-type"] ?? "")) throw mediaTypeError();
}

function hasBody(request: FastifyRequest): boolean {
  const length = request.headers["content-length"];
  return request.headers["transfer-encoding"] !== undefined || (length !== undefined && length !== "0");
}

/** Who asks, found out once for each request, before routing. */
function createCallers({ authenticator, clock, log }: AppOptions) {
  const known = new WeakMap<FastifyRequest, Caller>();
  const bearer = createBearer({
    authenticator,
    clock,
    onLimit: (peer) => log.warn({ peer }, "many requests with tokens that are not valid"),
  });
  return {
    async identify(request: FastifyRequest): Promise<void> {
      known.set(request, bearer(request.headers.authorization, peerOf(request)));
    },
    of: (request: FastifyRequest): Caller =>
      known.get(request) ?? { principal: { kind: "anonymous", id: "anonymous" } },
  };
}

function errorSender({ bodyLimit, log }: AppOptions) {
  return (thrown: unknown, reply: FastifyReply): void => {
    const error = toApiError(thrown, bodyLimit);
    if (error.code === "internal") log.error({ err: thrown }, "a request failed");
    reply
      .code(HTTP_STATUSES[error.code])
      .headers(headersOf(error))
      .send(JSON.stringify(toProblem(error)));
  };
}
