import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type Answering = (request: IncomingMessage, response: ServerResponse) => void;

/** A real service of templates on a loopback port, whose behaviour a test changes as it goes. */
export interface TemplateService {
  readonly url: string;
  readonly port: number;
  /** What it has, by id: an object goes as JSON, text as it is. */
  readonly documents: Map<string, unknown>;
  /** Method, path and headers of what it was asked, in order. */
  readonly asked: { path: string; headers: IncomingMessage["headers"] }[];
  /** Takes the place of its own answer while it is set. */
  answer: Answering | undefined;
  /** False: `/templates` is 404. */
  hasList: boolean;
  /** Ends it, so that connections are refused. Safe to call twice. */
  stop(): Promise<void>;
  /** On the same port again. */
  start(): Promise<void>;
}

export async function startTemplateService(
  documents: Record<string, unknown> = {},
): Promise<TemplateService> {
  let server: Server | undefined;
  let port = 0;
  const service: TemplateService = {
    get url() {
      return `http://127.0.0.1:${port}/design`;
    },
    get port() {
      return port;
    },
    documents: new Map(Object.entries(documents)),
    asked: [],
    answer: undefined,
    hasList: true,
    async stop() {
      const ended = new Promise((resolve) => (server ? server.close(resolve) : resolve(undefined)));
      server?.closeAllConnections();
      await ended;
      server = undefined;
    },
    async start() {
      server = createServer((request, response) => {
        service.asked.push({ path: request.url ?? "", headers: request.headers });
        (service.answer ?? answer)(request, response);
      });
      await new Promise<void>((resolve) => server?.listen(port, "127.0.0.1", resolve));
      port = (server.address() as AddressInfo).port;
    },
  };

  const answer: Answering = ({ url, headers }, response) => {
    const items = [...service.documents.keys()].map((template_id) => ({ template_id }));
    const isList = url === "/design/templates" && service.hasList;
    const found = isList ? { items } : service.documents.get(url?.replace("/design/templates/", "") ?? "");
    if (found === undefined) return void response.writeHead(404).end();
    const text = typeof found === "string" ? found : JSON.stringify(found);
    const etag = `"${text.length}-${text.slice(-40, -1).replaceAll(/[^a-z0-9]/gi, "")}"`;
    if (headers["if-none-match"] === etag) return void response.writeHead(304).end();
    response.writeHead(200, { "content-type": "application/json", etag }).end(text);
  };

  await service.start();
  return service;
}
