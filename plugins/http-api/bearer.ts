import { type Authenticator, type Clock, OpenStarryError, type Principal } from "../../core/index.js";

/** Who asks, and with which token; without a valid one, `anonymous`. */
export interface Caller {
  principal: Principal;
  token?: string;
}

export interface BearerOptions {
  authenticator: Authenticator;
  clock: Clock;
  /** Called once whenever a peer reaches the limit. */
  onLimit: (peer: string) => void;
}

const ANONYMOUS: Caller = { principal: { kind: "anonymous", id: "anonymous" } };
const MAX_FAILURES = 20;
const WINDOW_MS = 60_000;
/** Beyond this many addresses the oldest is forgotten, so that addresses cannot fill the memory. */
const MAX_PEERS = 10_000;

/**
 * Reads `Authorization: Bearer TOKEN`. After 20 invalid ones from a peer within 60 s, its further
 * invalid ones are answered with `rate_limited`; a valid one always passes.
 */
export function createBearer({ authenticator, clock, onLimit }: BearerOptions) {
  const failures = new Map<string, { count: number; sinceMs: number }>();

  const fail = (peer: string) => {
    const now = clock.monotonic();
    let entry = failures.get(peer);
    if (!entry || now - entry.sinceMs >= WINDOW_MS) {
      failures.delete(peer);
      entry = { count: 0, sinceMs: now };
      failures.set(peer, entry);
      const [oldest] = failures.keys();
      if (failures.size > MAX_PEERS && oldest !== undefined) failures.delete(oldest);
    }
    entry.count++;
    if (entry.count <= MAX_FAILURES) return;
    if (entry.count === MAX_FAILURES + 1) onLimit(peer);
    const retryAfterS = Math.ceil((entry.sinceMs + WINDOW_MS - now) / 1_000);
    throw new OpenStarryError("rate_limited", {
      detail: `more than ${MAX_FAILURES} requests from here had a token that is not valid`,
      hint: `wait ${retryAfterS} s; a valid token is accepted at any time`,
      data: { retry_after_s: retryAfterS },
    });
  };

  return (header: string | undefined, peer: string): Caller => {
    if (header === undefined) return ANONYMOUS;
    const token = /^Bearer ([\x21-\x7e]{1,512})$/i.exec(header)?.[1];
    const principal = token === undefined ? undefined : authenticator.authenticate(token);
    if (token !== undefined && principal) return { principal, token };
    fail(peer);
    return ANONYMOUS;
  };
}
