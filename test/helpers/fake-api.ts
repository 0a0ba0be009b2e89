import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** One request as it came over the wire. */
export interface SeenRequest {
  method: string;
  /** With its query. */
  path: string;
  headers: IncomingMessage["headers"];
  body: unknown;
}

export type Route = (request: SeenRequest, response: ServerResponse) => unknown;

export interface FakeApi {
  url: string;
  /** Every request, in order. */
  seen: SeenRequest[];
  close(): Promise<void>;
}

/**
 * A real HTTP server that answers what a test wants the daemon's API to answer: what `route` returns, as
 * JSON; nothing when it returns nothing, because it has taken the response into its own hands.
 */
export async function startFakeApi(route: Route, where: { socket?: string } = {}): Promise<FakeApi> {
  const seen: SeenRequest[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const one: SeenRequest = {
      method: request.method ?? "",
      path: request.url ?? "",
      headers: request.headers,
      body: text === "" ? undefined : JSON.parse(text),
    };
    seen.push(one);
    const answer = route(one, response);
    if (answer !== undefined) send(response, 200, answer);
  });
  await new Promise<void>((resolve) => {
    if (where.socket === undefined) server.listen(0, "127.0.0.1", resolve);
    else server.listen(where.socket, resolve);
  });
  const port = where.socket === undefined ? (server.address() as AddressInfo).port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    seen,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

export function send(response: ServerResponse, status: number, body: unknown): void {
  const type = status < 400 ? "application/json" : "application/problem+json";
  response.writeHead(status, { "content-type": type });
  response.end(JSON.stringify(body));
}
