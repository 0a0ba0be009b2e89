import { join } from "node:path";
import { OpenStarryError } from "../../../../core/index.js";

const NAME = "bus.lock";

/**
 * Two brokers on one file would give out the same positions. An SQLite write lock on a file beside it, which
 * the kernel of the machine drops when the process ends, however it ends. Rejects with `home_unusable` while
 * another process holds it. Answers what gives it back.
 */
export async function lockFolder(folder: string): Promise<() => void> {
  const { default: Database } = await import("libsql");
  const path = join(folder, NAME);
  const database = new Database(path, { timeout: 0 });
  try {
    // No journal file beside the lock: nothing is ever written into this database.
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (cause) {
    database.close();
    throw new OpenStarryError("home_unusable", {
      detail: `${path} cannot be locked: ${(cause as Error).message}`,
      hint: "another message broker runs on this folder: end that one",
      cause,
    });
  }
  return () => database.open && database.close();
}
