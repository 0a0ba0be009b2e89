import { isOpenStarryError, OpenStarryError } from "../../../core/index.js";

/** Error replies of Redis by their first word (redis.io/docs/latest/commands), and what to do about each. */
const REPLIES: Record<string, [problem: string, hint: string]> = {
  MISCONF: ["the server cannot write to its disk", "free disk space on the server; no restart is needed"],
  OOM: ["the server is out of memory", "remove data that is not needed, or raise maxmemory of the server"],
  READONLY: ["the server is a read-only replica", "set url to the primary"],
  LOADING: ["the server is loading its data", "try again in a moment"],
  MASTERDOWN: ["the server has lost its primary", "check the primary"],
  NOAUTH: ["the server requires a password", "set password_file, or a password in url"],
  WRONGPASS: ["the server rejects the password", "correct the password in url or password_file"],
  NOPERM: [
    "the user has no permission for this on the server",
    "grant the user in url the permissions listed in the README",
  ],
  BUSY: ["the server is busy with another client's script", "try again in a moment"],
};

/** Describes an error of the client or server, without the command that was sent: that may hold a secret. */
export function describeRedisError(cause: unknown): { problem: string; hint: string } {
  const text = cause instanceof Error ? cause.message : String(cause);
  const message = text.replace(/, with args beginning with:.*/s, "");
  // For an error in a script, the server's own error follows the line number.
  const [problem, hint] = REPLIES[/^(?:ERR )?([A-Z]+)\b/.exec(message)?.[1] ?? ""] ?? [];
  if (problem !== undefined && hint !== undefined) return { problem, hint };
  const code = (cause as { code?: unknown } | undefined)?.code;
  if (/Stream isn't writeable|Connection is closed|max retries per request|aborted due to/.test(message)) {
    return { problem: "connection lost", hint: "try again in a moment: the daemon reconnects" };
  }
  if (typeof code === "string") {
    return {
      problem: `cannot connect (${code})`,
      hint: "check that the server runs; the daemon needs no restart",
    };
  }
  return { problem: message, hint: "check the server, and try again" };
}

/**
 * Calls `act` and turns its errors into `code`. The client's errors do not become the cause: they contain the command,
 * and with it values or a password.
 */
export async function translateErrors<T>(
  code: "state_unavailable" | "bus_unavailable",
  address: string,
  act: () => Promise<T>,
): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    if (isOpenStarryError(cause)) throw cause;
    const { problem, hint } = describeRedisError(cause);
    throw new OpenStarryError(code, { detail: `${address}: ${problem}`, hint, data: { retry_after_s: 1 } });
  }
}
