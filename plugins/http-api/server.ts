import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type Logger, OpenStarryError } from "../../core/index.js";
import { limitConnections } from "./connections.js";
import { type GateRules, refuse } from "./gate.js";
import { answerRaw, SECURITY_HEADERS } from "./problems.js";

export interface ApiServerOptions {
  /** Takes what passed the gate. */
  route: (request: IncomingMessage, response: ServerResponse) => void;
  gate: () => GateRules;
  maxConnections: number;
  requestTimeoutMs: number;
  log: Logger;
}

/** A web server with the gate before everything else. */
export interface ApiServer {
  readonly server: Server;
  /**
   * Accepts nothing new, closes what is idle, and resolves when every answer under way is complete. What
   * is asked meanwhile is answered where there is a successor, and else told to come again.
   */
  close(how: { successor: boolean }): Promise<void>;
  closeNow(): void;
}

/** How long a client may take for the headers, where the whole request may take longer. */
const HEADERS_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 60_000;
/** How long a connection that was accepted just before the hand-over may take for its first request. */
const FRESH_MS = 500;

export function createApiServer(options: ApiServerOptions): ApiServer {
  const { requestTimeoutMs, log } = options;
  let closing: Promise<void> | undefined;
  let hasSuccessor = false;

  const handle = (request: IncomingMessage, response: ServerResponse, isExpecting: boolean) => {
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.setHeader(name, value);
    // Its next request goes to the one who listens then.
    if (closing !== undefined) response.setHeader("connection", "close");
    const stops = closing !== undefined && !hasSuccessor;
    const refused = stops ? stoppingError() : refuse(request, options.gate());
    if (refused) return answerRaw(response, refused);
    if (isExpecting) response.writeContinue();
    options.route(request, response);
  };
  const server = createServer({
    requestTimeout: requestTimeoutMs,
    headersTimeout: Math.min(HEADERS_TIMEOUT_MS, requestTimeoutMs),
    connectionsCheckingInterval: Math.min(1_000, requestTimeoutMs),
    keepAliveTimeout: KEEP_ALIVE_MS,
    // The gate answers for these, with a reason.
    requireHostHeader: false,
  });
  const connections = limitConnections(server, options.maxConnections);
  server.on("request", (request, response) => handle(request, response, false));
  server.on("checkContinue", (request, response) => {
    connections.begin(request, response);
    handle(request, response, true);
  });
  server.once("listening", () => {
    // Such as no descriptor left for a new connection: no reason to end the daemon.
    server.on("error", (err) => log.warn({ err }, "the API could not accept a connection"));
  });
  return {
    server,
    close({ successor }) {
      hasSuccessor = successor;
      closing ??= new Promise((resolve) => {
        server.close(() => resolve());
        connections.drain(successor ? FRESH_MS : 0);
      });
      return closing;
    },
    closeNow: () => server.closeAllConnections(),
  };
}

function stoppingError(): OpenStarryError {
  return new OpenStarryError("daemon_stopping", {
    detail: "the daemon stops or restarts",
    hint: "ask again in a moment",
  });
}
