import { OpenStarryError, toOpenStarryError } from "../contracts/errors.js";
import { type JournalBatch, journal } from "../contracts/journal.js";
import type { SupervisorDeps } from "./supervisor-deps.js";

/** Journals batches and publishes their events. A journal that cannot be written is a problem of the daemon until it can. */
export function createJournalWrite({
  slots,
  publish,
  problem,
}: Pick<SupervisorDeps, "slots" | "publish" | "problem">): (batch: JournalBatch) => Promise<void> {
  return async (batch) => {
    try {
      publish(await slots.use(journal).append(batch));
      problem("journal", undefined);
    } catch (error) {
      const known = toOpenStarryError(error);
      problem("journal", known.message);
      throw known.code === "journal_unavailable"
        ? known
        : new OpenStarryError("journal_unavailable", {
            detail: "the journal could not be written",
            hint: "check the daemon's log and the free disk space, then try again",
            cause: error,
          });
    }
  };
}
