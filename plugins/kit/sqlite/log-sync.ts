import { closeSync, fdatasync, openSync } from "node:fs";
import { join } from "node:path";
import { OpenStarryError } from "../../../core/index.js";
import type { DatabaseKind } from "./database-kind.js";

/**
 * Syncs SQLite's write-ahead log, as `synchronous = FULL` does after every commit (sqlite.org/pragma.html),
 * but beside the event loop. The log keeps its inode while the database is open, and SQLite's locks lie
 * on another file.
 */
export interface LogSync {
  /** Rejects with the kind's error. */
  sync(): Promise<void>;
  close(): void;
}

export function createLogSync({ fileName, unavailable }: DatabaseKind, dataDir: string): LogSync {
  let fd: number | undefined;
  return {
    async sync() {
      try {
        // It is there as soon as something was written.
        const opened = fd ?? openSync(join(dataDir, `${fileName}-wal`), "r");
        fd = opened;
        await new Promise<void>((resolve, reject) => {
          fdatasync(opened, (error) => (error ? reject(error) : resolve()));
        });
      } catch (cause) {
        throw new OpenStarryError(unavailable, {
          detail: `${fileName} could not be synced: ${(cause as NodeJS.ErrnoException).code}`,
          hint: "see whether the disk is full or failing",
          cause,
        });
      }
    },
    close() {
      if (fd !== undefined) closeSync(fd);
      fd = undefined;
    },
  };
}
