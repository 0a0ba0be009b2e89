import { isOpenStarryError, OpenStarryError } from "../../core/index.js";

export const FILE_NAME = "journal.db";

/** Whatever goes wrong, as `journal_unavailable` with its cause. `what` says what could not be done. */
export function unavailable<T>(what: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    if (isOpenStarryError(cause)) throw cause;
    throw new OpenStarryError("journal_unavailable", {
      detail: `${what}: ${messageOf(cause)}`,
      hint: "free disk space and check the folder's permissions; then ask again",
      cause,
    });
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
