import { type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from "node:http";
import { connect } from "node:net";

export interface Ask {
  /** A port of 127.0.0.1, or the path of a unix socket. */
  at: number | string;
  method?: string;
  path?: string;
  headers?: OutgoingHttpHeaders;
  token?: string;
  /** An object goes as JSON; text and bytes as they are. */
  body?: unknown;
}

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  /** The body parsed as JSON, or `undefined`. */
  json: Record<string, unknown>;
}

/** One request on a connection of its own, any header allowed. */
export function ask({ at, method = "GET", path = "/", headers = {}, token, body }: Ask): Promise<Answer> {
  const isRaw = typeof body === "string" || Buffer.isBuffer(body);
  const payload = body === undefined ? undefined : isRaw ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        ...(typeof at === "number" ? { host: "127.0.0.1", port: at } : { socketPath: at }),
        agent: false,
        method,
        path,
        headers: {
          ...(payload === undefined || "transfer-encoding" in headers
            ? {}
            : { "content-length": Buffer.byteLength(payload) }),
          ...(payload === undefined || isRaw ? {} : { "content-type": "application/json" }),
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...headers,
        },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8");
          const isJson = /json/.test(response.headers["content-type"] ?? "");
          const json = isJson && text !== "" ? JSON.parse(text) : undefined;
          resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json });
        });
      },
    );
    sent.on("error", reject);
    sent.end(payload);
  });
}

/** Sends the text as it is, and answers everything that comes until the other side closes. */
export function sendRaw(at: number | string, text: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = typeof at === "number" ? connect(at, "127.0.0.1") : connect(at);
    const chunks: Buffer[] = [];
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("error", reject);
    socket.on("close", () => resolve(Buffer.concat(chunks).toString("utf8")));
    socket.write(text);
  });
}

/** The status of a raw answer. */
export function statusOf(answer: string): number {
  return Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1]);
}
