import { join } from "node:path";
import {
  authenticator,
  definePlugin,
  type Operation,
  operation,
  type PluginContext,
} from "../../core/index.js";
import { createPortMemory } from "../kit/port-memory.js";
import { socketPath } from "../kit/socket-path.js";
import { type App, createApp } from "./app.js";
import { type KeptSocket, keepSocket } from "./kept-socket.js";
import { listeningFd, listenTcp } from "./listen.js";
import { openApiOperation } from "./openapi.js";
import { isLoopback, type Options, optionsSchema } from "./options.js";
import { type ApiServer, createApiServer } from "./server.js";

/** How long requests under way may go on after the stop has begun, before those that wait are ended. */
const DRAIN_MS = 1_000;

/** The management API: every operation that names an HTTP route, on a loopback port and a socket. */
export default definePlugin({
  name: "http-api",
  apiVersion: 1,
  requires: [authenticator],
  optional: [operation],
  provides: [operation],
  options: optionsSchema,
  setup(ctx, options) {
    const operations = () => [...ctx.use(operation).values()] as unknown as Operation[];
    ctx.provide(
      operation,
      openApiOperation(operations, () => ctx.daemon.status().version),
    );
    let running: Running | undefined;
    return {
      async start() {
        running = await start(ctx, options, operations());
      },
      stop: (signal) => running?.stop(signal),
    };
  },
});

interface Running {
  stop(signal: AbortSignal): Promise<void>;
}

async function start(ctx: PluginContext, options: Options, operations: Operation[]): Promise<Running> {
  const app = await createApp({
    operations,
    dispatch: ctx.dispatch,
    authenticator: ctx.use(authenticator),
    clock: ctx.clock,
    log: ctx.log,
    bodyLimit: options.body_limit,
    maxStreams: options.max_streams,
  });
  const servers: ApiServer[] = [];
  let port = options.port;
  const createListener = (transport: "tcp" | "unix") => {
    const server = createApiServer({
      route: (request, response) => app.fastify.routing(request, response),
      gate: () => ({ transport, port, allowedHosts: options.allowed_hosts }),
      maxConnections: options.max_connections,
      requestTimeoutMs: options.request_timeout,
      log: ctx.log,
    });
    servers.push(server);
    return server.server;
  };
  let socket: KeptSocket | undefined;
  const stop = async (signal: AbortSignal) => {
    socket?.release();
    if (!ctx.daemon.sockets.handedOver()) socket?.remove();
    await drain(ctx, app, servers, signal);
    await app.fastify.close();
  };
  try {
    port = await openTcp(ctx, options, createListener("tcp"));
    if (options.socket) socket = await openUnix(ctx, () => createListener("unix"));
  } catch (error) {
    await stop(AbortSignal.abort());
    throw error;
  }
  return { stop };
}

async function openTcp(
  ctx: PluginContext,
  { host, port: wanted }: Options,
  server: ApiServer["server"],
): Promise<number> {
  const { sockets } = ctx.daemon;
  const port = await listenTcp(server, {
    host,
    port: wanted,
    inherited: sockets.inherited("tcp"),
    memory: createPortMemory(join(ctx.dataDir, "http-api.json")),
  });
  offer(ctx, "tcp", server);
  // A remote address takes loopback connections too when it is that of every interface.
  const at = isLoopback(host) || !/^(0\.0\.0\.0|::)$/.test(host) ? host : "127.0.0.1";
  const url = `http://${at.includes(":") ? `[${at}]` : at}:${port}`;
  ctx.services.publishEndpoint({
    name: "api",
    protocol: "http",
    health: () => (server.listening ? undefined : "it does not listen"),
    urlFor: () => url,
  });
  return port;
}

async function openUnix(ctx: PluginContext, createServer: () => ApiServer["server"]): Promise<KeptSocket> {
  const path = socketPath(ctx.dataDir, "daemon.sock");
  const socket = await keepSocket({
    path,
    inherited: ctx.daemon.sockets.inherited("unix"),
    createServer,
    listens: (server) => offer(ctx, "unix", server),
    clock: ctx.clock,
    log: ctx.log,
  });
  ctx.services.publishEndpoint({
    name: "api_socket",
    protocol: "unix",
    variable: "OPENSTARRY_API_SOCKET",
    health: () => (socket.listening ? undefined : "it does not listen"),
    urlFor: () => path,
  });
  return socket;
}

function offer(ctx: PluginContext, name: string, server: ApiServer["server"]): void {
  const fd = listeningFd(server);
  if (fd !== undefined) ctx.daemon.sockets.offer(name, fd);
}

/** Accepts no more, ends the streams, and lets the requests under way finish until `signal` aborts. */
async function drain(ctx: PluginContext, app: App, servers: ApiServer[], signal: AbortSignal): Promise<void> {
  const closeNow = () => {
    for (const server of servers) server.closeNow();
  };
  const successor = ctx.daemon.sockets.handedOver();
  const closed = Promise.all(servers.map((server) => server.close({ successor })));
  app.endStreams();
  const cancelAbort = ctx.clock.after(DRAIN_MS, app.abort);
  if (signal.aborted) closeNow();
  else signal.addEventListener("abort", closeNow, { once: true });
  await closed;
  cancelAbort();
  signal.removeEventListener("abort", closeNow);
}
