import { isOpenStarryError, OpenStarryError } from "../../core/index.js";

/**
 * What failures of the driver and of the server mean, in own words: theirs may hold values, names and connection
 * strings, so that nothing of them is told but the code (postgresql.org/docs/current/errcodes-appendix.html).
 */
const WORDS: Readonly<Record<string, string>> = {
  "28P01": "it refuses the password",
  "28000": "it refuses this user",
  "3D000": "there is no database of that name",
  "42501": "this user has not the right to do it",
  "25006": "it takes no writes: it is a standby, or set to read-only",
  "53100": "its disk is full",
  "53200": "it is out of memory",
  "53300": "it has no connection left",
  "55P03": "another one held a lock for too long",
  "57014": "it took too long",
  "57P01": "it is being stopped, or has ended the connection",
  "57P02": "it crashed, and is recovering",
  "57P03": "it is starting or stopping",
  "25P03": "the daemon held a transaction for too long",
  ENOENT: "nobody listens there",
  ECONNREFUSED: "nobody listens there",
  ECONNRESET: "the connection broke",
  EPIPE: "the connection broke",
  ENOTFOUND: "the name of its host is not known",
  EAI_AGAIN: "the name of its host cannot be looked up now",
  EHOSTUNREACH: "its host cannot be reached",
  ENETUNREACH: "its host cannot be reached",
  ETIMEDOUT: "it does not answer",
};

/** The driver has no codes for these. */
const DRIVER_WORDS: readonly (readonly [RegExp, string])[] = [
  [/does not support SSL/, "it speaks no TLS, and the url asks for it"],
  [/timeout/i, "it does not answer in time"],
  [/SASL|password/i, "it refuses the password, or wants one"],
  [/terminated|closed|not queryable|ended/i, "the connection broke"],
];

export function wordsFor(error: unknown): string {
  const code = codeOf(error);
  const known = WORDS[code];
  if (known !== undefined) return `${known} (${code})`;
  if (code !== "") return `it failed with ${code}`;
  const message = error instanceof Error ? error.message : "";
  return DRIVER_WORDS.find(([pattern]) => pattern.test(message))?.[1] ?? "the connection failed";
}

/** `state_unavailable` with own words. The driver's error is not its cause: causes are logged. */
export function unavailable(what: string, error: unknown): OpenStarryError {
  if (isOpenStarryError(error)) return error;
  return new OpenStarryError("state_unavailable", {
    detail: `${what}: ${wordsFor(error)}`,
    hint: "ask again in a moment; a write may have happened or not: read before you write again",
  });
}

/** Seen by the daemon itself, as when a namespace is dropped while it is made. */
export class ConcurrentInsertError extends Error {
  readonly code = "40001";
}

/** Two transactions were in each other's way, and the server gave up this one: nothing of it has happened. */
export function isCollision(error: unknown): boolean {
  return ["40001", "40P01"].includes(codeOf(error));
}

/** The server said so itself, so that the connection goes on. */
export function isAnswer(error: unknown): boolean {
  return /^(?!57P)[0-9A-Z]{5}$/.test(codeOf(error)) && "severity" in (error as object);
}

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === "string" && /^[A-Z0-9_]{1,40}$/.test(code) ? code : "";
}
