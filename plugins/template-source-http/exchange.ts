import { type IncomingHttpHeaders, request as plainRequest } from "node:http";
import { request as tlsRequest } from "node:https";

export interface Sending {
  headers: Record<string, string>;
  maxBytes: number;
  signal: AbortSignal;
}

export interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  /** Absent: it is larger than may be. */
  body?: Buffer;
}

const MAX_REDIRECTS = 3;

/**
 * `GET`, over connections of its own. A redirect is followed on the same server only: elsewhere is not where
 * the operator has said, and neither the token nor the trust goes there. Rejects with an error whose message,
 * where it has no `code`, goes on after the server's name.
 */
export async function get(first: URL, sending: Sending): Promise<Reply> {
  let at = first;
  for (let hops = 0; ; hops++) {
    const reply = await send(at, sending);
    const { location } = reply.headers;
    if (![301, 302, 303, 307, 308].includes(reply.status) || location === undefined) return reply;
    const next = URL.canParse(location, at.href) ? new URL(location, at) : undefined;
    if (next?.origin !== first.origin) throw new Error("redirects to another server, which is not followed");
    if (hops === MAX_REDIRECTS) throw new Error(`redirects more than ${MAX_REDIRECTS} times`);
    at = next;
  }
}

function send(at: URL, { headers, maxBytes, signal }: Sending): Promise<Reply> {
  const request = at.protocol === "https:" ? tlsRequest : plainRequest;
  return new Promise((resolve, reject) => {
    const asked = request(at, { headers, agent: false, signal });
    asked.on("error", reject);
    // Else it would say nothing: neither an error nor an answer comes of it.
    asked.on("upgrade", ({ statusCode: status = 0, headers }, socket) => {
      socket.destroy();
      resolve({ status, headers });
    });
    asked.on("response", (response) => {
      const { statusCode: status = 0, headers } = response;
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on("error", reject);
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes <= maxBytes) return void chunks.push(chunk);
        resolve({ status, headers });
        asked.destroy();
      });
      response.on("end", () => resolve({ status, headers, body: Buffer.concat(chunks) }));
      // Says nothing new when it has ended or failed already.
      response.on("close", () => reject(new Error("broke its answer off")));
    });
    asked.end();
  });
}
