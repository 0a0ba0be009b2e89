import { errorText, isOpenStarryError, OpenStarryError } from "../../../core/index.js";
import type { DatabaseKind } from "./database-kind.js";

/** Whatever goes wrong, as the kind's error with its cause. `what` says what could not be done. */
export function unavailable<T>(kind: DatabaseKind, what: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    if (isOpenStarryError(cause)) throw cause;
    throw new OpenStarryError(kind.unavailable, {
      detail: `${what}: ${errorText(cause)}`,
      hint: hintFor(kind, cause),
      cause,
    });
  }
}

/** What to do about an error of SQLite or of the file system. */
export function hintFor({ fileName }: DatabaseKind, cause: unknown): string {
  if (isDiskFull(cause)) return "free disk space; nothing has to be restarted";
  if (codeOf(cause).startsWith("SQLITE_BUSY")) {
    return `another program is writing to ${fileName}: see which, and end that; nothing has to be restarted`;
  }
  if (isDamage(cause)) {
    return `${fileName} is damaged: stop the daemon with --keep-agents, put a backup in its place, and start`;
  }
  return "see that the file and its folder can be written and that the disk works; then ask again";
}

/** SQLite says so of what is not a database, or not a sound one (sqlite.org/rescode.html). */
export function isDamage(cause: unknown): boolean {
  return /^SQLITE_(CORRUPT|NOTADB|IOERR_SHORT_READ)|^SQLITE_ERROR$/.test(codeOf(cause));
}

export function isDiskFull(cause: unknown): boolean {
  return /^(SQLITE_FULL|ENOSPC|EDQUOT)/.test(codeOf(cause));
}

function codeOf(cause: unknown): string {
  return String((cause as { code?: unknown } | undefined)?.code);
}
