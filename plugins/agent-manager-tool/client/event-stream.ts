import type { IncomingMessage } from "node:http";
import { errorFromProblem } from "../tools/answers.js";
import { pause, type Transport, worthAnotherTry } from "./transport.js";

/** One server-sent event, its data parsed as JSON where it is JSON. */
export interface StreamEvent {
  id?: string;
  event: string;
  data: unknown;
}

export interface FollowOptions {
  path: string;
  query?: Readonly<Record<string, string | number | boolean | undefined>>;
  /** Only what came after this one. */
  lastEventId?: string;
  /** For how long a lost connection is tried again, in milliseconds. Default 30,000. */
  reconnectForMs?: number;
  signal?: AbortSignal;
}

const RECONNECT_FOR_MS = 30_000;
const FIRST_BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 2_000;
const LONGEST_EVENT_CHARS = 8 * 2 ** 20;

/**
 * Follows an endless stream of events, across lost connections: each new one asks for what came after
 * the last event seen. Ends when the signal aborts; throws when the daemon refuses, or stays away for
 * `reconnectForMs`.
 */
export async function* followEvents(
  transport: Transport,
  options: FollowOptions,
): AsyncGenerator<StreamEvent> {
  const { signal } = options;
  let lastEventId = options.lastEventId;
  // Absent while connected; 0 before the first time, so that a daemon that is not there is told at once.
  let giveUpAt: number | undefined = 0;
  let backoffMs = FIRST_BACKOFF_MS;
  for (;;) {
    try {
      const response = await transport.stream({
        method: "GET",
        path: options.path,
        ...(options.query ? { query: options.query } : {}),
        headers: {
          accept: "text/event-stream",
          ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }),
        },
        ...(signal ? { signal } : {}),
      });
      giveUpAt = undefined;
      for await (const event of parseEvents(response)) {
        if (event.event === "error") throw errorFromProblem(asObject(event.data));
        backoffMs = FIRST_BACKOFF_MS;
        lastEventId = event.id ?? lastEventId;
        if (event.data !== undefined) yield event;
      }
    } catch (error) {
      if (signal?.aborted) return;
      if (!worthAnotherTry(error) && !brokeOff(error)) throw error;
      giveUpAt ??= performance.now() + (options.reconnectForMs ?? RECONNECT_FOR_MS);
      if (performance.now() > giveUpAt) throw error;
    }
    await pause(backoffMs, signal).catch(() => undefined);
    if (signal?.aborted) return;
    backoffMs = Math.min(backoffMs * 2, LONGEST_BACKOFF_MS);
  }
}

function asObject(data: unknown): Record<string, unknown> {
  return typeof data === "object" && data !== null ? { ...data } : {};
}

/** The connection ended in the middle of the stream. */
function brokeOff(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ECONNRESET" || code === "EPIPE" || code === "ERR_STREAM_PREMATURE_CLOSE";
}

/**
 * Server-sent events as the HTML standard defines their parsing (section 9.2.6), without `retry`. An
 * event that was not finished by an empty line is dropped, so that it comes again whole. An id without
 * data comes as an event without data.
 */
export async function* parseEvents(response: IncomingMessage): AsyncGenerator<StreamEvent> {
  response.setEncoding("utf8");
  let rest = "";
  let fields: { id?: string; event?: string; data: string[] } = { data: [] };
  for await (const chunk of response as AsyncIterable<string>) {
    rest += chunk;
    // A carriage return at the end may be the first half of a line end.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    if (rest.length > LONGEST_EVENT_CHARS) throw new Error("an event of the stream is too long");
    for (const line of lines) {
      if (line === "") {
        if (fields.data.length > 0) yield finished(fields);
        else if (fields.id !== undefined) yield { id: fields.id, event: "", data: undefined };
        fields = { ...(fields.id === undefined ? {} : { id: fields.id }), data: [] };
        continue;
      }
      const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/.exec(line) ?? [];
      if (name === "id") fields.id = value;
      if (name === "event") fields.event = value;
      if (name === "data") fields.data.push(value);
    }
  }
}

function finished(fields: { id?: string; event?: string; data: string[] }): StreamEvent {
  const text = fields.data.join("\n");
  let data: unknown = text;
  try {
    data = JSON.parse(text);
  } catch {
    // Plain text is as good an event as JSON.
  }
  return { ...(fields.id === undefined ? {} : { id: fields.id }), event: fields.event ?? "message", data };
}
