import { isOpenStarryError, OpenStarryError } from "../../../core/index.js";

/** What redis says by the first word of an error, and what to do about it (redis.io/docs/latest/commands). */
const REPLIES: Record<string, [problem: string, hint: string]> = {
  MISCONF: [
    "the server cannot write to its disk",
    "free disk space where the server is; nothing has to be restarted",
  ],
  OOM: ["the server's memory is used up", "remove what is not needed, or raise maxmemory of the server"],
  READONLY: ["the server is a replica, which cannot be written", "name the primary with url"],
  LOADING: ["the server is loading its data", "ask again in a moment"],
  MASTERDOWN: ["the server has lost its primary", "see to the primary"],
  NOAUTH: ["the server asks for a password", "give one with password_file, or in url"],
  WRONGPASS: ["the server refuses the password", "correct the password of url or password_file"],
  NOPERM: [
    "the server does not let its user do this",
    "give the user of url the rights that the README names",
  ],
  BUSY: ["the server is busy with somebody's script", "ask again in a moment"],
};

/** What went wrong between us and a server, without what was sent: that may be a secret. */
export function redisProblem(cause: unknown): { problem: string; hint: string } {
  const text = cause instanceof Error ? cause.message : String(cause);
  const message = text.replace(/, with args beginning with:.*/s, "");
  // A script's error says in which line, and behind that the server's own.
  const [problem, hint] = REPLIES[/^(?:ERR )?([A-Z]+)\b/.exec(message)?.[1] ?? ""] ?? [];
  if (problem !== undefined && hint !== undefined) return { problem, hint };
  const code = (cause as { code?: unknown } | undefined)?.code;
  if (/Stream isn't writeable|Connection is closed|max retries per request|aborted due to/.test(message)) {
    return { problem: "the connection is lost", hint: "ask again in a moment: it is connected anew" };
  }
  if (typeof code === "string") {
    return {
      problem: `it cannot be reached (${code})`,
      hint: "see that the server runs; nothing has to be restarted",
    };
  }
  return { problem: message, hint: "see that the server runs as it should, and ask again" };
}

/**
 * What `act` answers. Whatever goes wrong becomes `code` in words, with none of the client's errors as its cause:
 * they carry the command, and with it values or a password.
 */
export async function reaching<T>(
  code: "state_unavailable" | "bus_unavailable",
  address: string,
  act: () => Promise<T>,
): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    if (isOpenStarryError(cause)) throw cause;
    const { problem, hint } = redisProblem(cause);
    throw new OpenStarryError(code, { detail: `${address}: ${problem}`, hint, data: { retry_after_s: 1 } });
  }
}
