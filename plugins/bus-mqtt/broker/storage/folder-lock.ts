import { join } from "node:path";
import { OpenStarryError } from "../../../../core/index.js";

const NAME = "bus.lock";

/**
 * Locks the folder for this process, since two brokers on one file would assign the same positions. Returns the
 * function that unlocks it. Rejects with `home_unusable` while another process holds the lock.
 *
 * The lock is an SQLite write lock on a file of its own: the operating system releases it when the process ends,
 * however it ends.
 */
export async function lockFolder(folder: string): Promise<() => void> {
  const { default: Database } = await import("libsql");
  const path = join(folder, NAME);
  const database = new Database(path, { timeout: 0 });
  try {
    // Nothing is ever written to this database, so it needs no journal file.
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (cause) {
    database.close();
    throw new OpenStarryError("home_unusable", {
      detail: `cannot lock ${path}: ${(cause as Error).message}`,
      hint: "another message broker runs on this folder: stop that one",
      cause,
    });
  }
  return () => database.open && database.close();
}
