import { readFile } from "node:fs/promises";
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { type ErrorCode, isOpenStarryError, OpenStarryError } from "../../../core/contracts/errors.js";
import { errorFromAnswer } from "../tools/answers.js";
import type { Target, TargetSource } from "./target.js";

/** One request to the daemon. */
export interface Call {
  method: "GET" | "POST" | "PUT" | "DELETE";
  path: string;
  query?: Readonly<Record<string, string | number | boolean | undefined>>;
  body?: unknown;
  headers?: Readonly<Record<string, string>>;
  /** How long the answer may take. Default 30,000; streams are only bound until their first byte. */
  timeoutMs?: number;
  signal?: AbortSignal;
  /** Asking twice does no harm, so it is asked again when no answer came. Default: only for GET. */
  repeatable?: boolean;
}

export interface Transport {
  /** The answer's JSON, or its text where it is not JSON. Rejects with an OpenStarryError. */
  json<T>(call: Call): Promise<T>;
  /** The answer as it comes, once its status is known to be good. */
  stream(call: Call): Promise<IncomingMessage>;
  close(): void;
}

export interface TransportOptions {
  target: TargetSource;
  /** For how long a repeatable request is tried again, in milliseconds. */
  retryForMs: number;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const FIRST_BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 2_000;
const LONGEST_ANSWER_BYTES = 64 * 2 ** 20;
/** No answer came, or one that says "later": the same request may fare better. */
const WORTH_ANOTHER_TRY: readonly ErrorCode[] = [
  "daemon_not_running",
  "daemon_stopping",
  "journal_unavailable",
  "state_unavailable",
  "bus_unavailable",
];

/**
 * HTTP to the daemon over its unix socket or its loopback port, on kept-alive connections. Redirects
 * are not followed and proxies not used: the token goes to the daemon and nowhere else.
 */
export function createTransport(options: TransportOptions): Transport {
  // Long polls hold their connections, so the number of those in use has no bound: a heartbeat
  // must never wait behind them.
  const connections = new HttpAgent({ keepAlive: true, maxFreeSockets: 8 });

  async function open(call: Call, endless: boolean): Promise<IncomingMessage> {
    call.signal?.throwIfAborted();
    const target = await options.target();
    const token = await readToken(target);
    call.signal?.throwIfAborted();
    return new Promise((resolve, reject) => {
      const body = call.body === undefined ? undefined : Buffer.from(JSON.stringify(call.body));
      const request = httpRequest({
        agent: connections,
        ...target.address,
        method: call.method,
        path: call.path + queryString(call.query),
        headers: {
          accept: "application/json, text/event-stream, text/plain",
          ...call.headers,
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined
            ? {}
            : { "content-type": "application/json", "content-length": body.length }),
        },
      });
      let response: IncomingMessage | undefined;
      const end = (error: Error) => (response ?? request).destroy(error);
      const timeoutMs = call.timeoutMs ?? DEFAULT_TIMEOUT_MS;
      const timer = setTimeout(() => end(tooSlow(call, target, timeoutMs)), timeoutMs);
      const abort = () => end(abortReason(call.signal));
      call.signal?.addEventListener("abort", abort, { once: true });
      request.on("error", (error) => reject(connectionError(error, call, target)));
      request.on("response", (answer) => {
        response = answer;
        if (endless) clearTimeout(timer);
        resolve(answer);
      });
      request.on("close", () => {
        clearTimeout(timer);
        call.signal?.removeEventListener("abort", abort);
      });
      request.end(body);
    });
  }

  async function good(call: Call, endless = false): Promise<IncomingMessage> {
    const response = await open(call, endless);
    if ((response.statusCode ?? 500) < 300) return response;
    throw errorFromAnswer(response.statusCode ?? 500, response.headers, await readAll(response));
  }

  async function insist<T>(call: Call, attempt: () => Promise<T>): Promise<T> {
    // From the first failure on: a request may have taken long until then.
    let giveUpAt: number | undefined;
    for (let backoffMs = FIRST_BACKOFF_MS; ; backoffMs = Math.min(backoffMs * 2, LONGEST_BACKOFF_MS)) {
      try {
        return await attempt();
      } catch (error) {
        // Half of the delay is random, so that many agents do not come back at the same moment.
        const delayMs = backoffMs * (0.5 + Math.random() / 2);
        giveUpAt ??= performance.now() + options.retryForMs;
        const again = call.repeatable ?? call.method === "GET";
        if (!again || !worthAnotherTry(error) || performance.now() + delayMs > giveUpAt) throw error;
        await pause(delayMs, call.signal);
      }
    }
  }

  return {
    json: (call) =>
      insist(call, async () => {
        const response = await good(call);
        const text = await readAll(response);
        return isJson(response) ? parseAnswer(text, call) : text;
      }) as Promise<never>,
    stream: (call) => insist(call, () => good(call, true)),
    close: () => connections.destroy(),
  };
}

/** Resolves after `delayMs`; rejects with the signal's reason when that comes first. */
export function pause(delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortReason(signal));
    const abort = () => {
      clearTimeout(timer);
      reject(abortReason(signal));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, delayMs);
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** Whether the same request may succeed a little later. */
export function worthAnotherTry(error: unknown): boolean {
  return isOpenStarryError(error) && WORTH_ANOTHER_TRY.includes(error.code);
}

/** Read anew for every request, so that a rotated token is used at once. */
async function readToken(target: Target): Promise<string | undefined> {
  if (target.token !== undefined) return target.token;
  if (target.tokenFile === undefined) return undefined;
  try {
    return (await readFile(target.tokenFile, "utf8")).trim();
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "an unknown error";
    throw new OpenStarryError("unauthenticated", {
      detail: `the token file ${target.tokenFile} cannot be read: ${code}`,
      hint: "an agent's token is gone when its run is over; the operator's is made by the daemon's first start",
      cause,
    });
  }
}

function connectionError(error: NodeJS.ErrnoException, call: Call, target: Target): Error {
  if (isOpenStarryError(error) || call.signal?.aborted) return error;
  const absent = error.code === "ECONNREFUSED" || error.code === "ENOENT";
  return new OpenStarryError("daemon_not_running", {
    detail: absent
      ? `no daemon answers at ${target.label} (${error.code})`
      : `the connection to the daemon at ${target.label} broke (${error.code ?? error.message})`,
    hint: absent
      ? "start it with: openstarry-daemon start"
      : "ask again; if it was a change, look first whether it was made",
    cause: error,
    data: { reached: !absent },
  });
}

function tooSlow(call: Call, target: Target, timeoutMs: number): OpenStarryError {
  return new OpenStarryError("timeout", {
    detail: `${call.method} ${call.path}: the daemon at ${target.label} did not answer within ${timeoutMs} ms`,
    hint: "ask again, with a longer timeout; if it was a change, look first whether it was made",
  });
}

function abortReason(signal: AbortSignal | undefined): Error {
  return signal?.reason instanceof Error ? signal.reason : new DOMException("aborted", "AbortError");
}

async function readAll(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > LONGEST_ANSWER_BYTES) {
        throw new OpenStarryError("body_too_large", {
          detail: `the answer is larger than ${LONGEST_ANSWER_BYTES} bytes`,
          hint: "ask for less, for example with tail or limit",
        });
      }
      chunks.push(chunk);
    }
  } catch (cause) {
    // What `end` gave it: the deadline, or the caller's own reason.
    if ((cause as NodeJS.ErrnoException).code !== "ECONNRESET") throw cause;
    throw new OpenStarryError("daemon_not_running", {
      detail: `the daemon's answer broke off after ${bytes} bytes`,
      hint: "ask again; if it was a change, look first whether it was made",
      cause,
      data: { reached: true },
    });
  }
  return Buffer.concat(chunks).toString("utf8");
}

function isJson(response: IncomingMessage): boolean {
  return /^application\/([a-z.-]+\+)?json\b/.test(response.headers["content-type"] ?? "");
}

function parseAnswer(text: string, call: Call): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new OpenStarryError("internal", {
      detail: `${call.method} ${call.path}: the answer is not valid JSON`,
      hint: "look whether something else than the daemon answers at this address",
      cause,
    });
  }
}

function queryString(query: Call["query"]): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) search.set(name, String(value));
  }
  return search.size === 0 ? "" : `?${search}`;
}
