import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { open, rename, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { OpenStarryError } from "../../core/index.js";

/**
 * Writes a file atomically and durably, readable by the daemon's user alone. The temporary file has a random name, so
 * that it cannot be prepared; a link of the final name is replaced, not followed.
 */
export async function writeWhole(path: string, text: string): Promise<void> {
  const temporary = join(dirname(path), `.${randomBytes(8).toString("hex")}.tmp`);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  try {
    const file = await open(temporary, flags, 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (cause) {
    await unlink(temporary).catch(() => {});
    throw unusable(`${path} could not be written`, cause);
  }
}

/** Deletes a file durably. */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
    await syncFolder(dirname(path));
  } catch (cause) {
    throw unusable(`${path} could not be deleted`, cause);
  }
}

/** Syncs a folder: a file name is durable only when its folder is. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Creates a `home_unusable` error with the system's error code. */
export function unusable(what: string, cause: unknown): OpenStarryError {
  return new OpenStarryError("home_unusable", {
    detail: `${what} (${(cause as NodeJS.ErrnoException).code ?? String(cause)})`,
    hint: "see who owns the daemon's home, and that the disk has space",
    cause,
  });
}
