import { lstatSync } from "node:fs";
import { join } from "node:path";
import { OpenStarryError } from "../../../core/index.js";
import type { DatabaseKind } from "./database-kind.js";

/**
 * The files that an open database writes to. SQLite goes on with files that were removed or renamed, and
 * all that it writes then is gone with the process.
 */
export interface OpenFiles {
  /**
   * Which of them has lost its name. Throws the kind's error when something else lies in its place:
   * that may be somebody's good file, and is not written over.
   */
  lost(): "database" | "log" | undefined;
}

/** Of a database that is open and was read from, so that its log is there. */
export function watchOpenFiles({ fileName, unavailable }: DatabaseKind, dataDir: string): OpenFiles {
  const path = join(dataDir, fileName);
  const files = { database: path, log: `${path}-wal` } as const;
  const opened = { database: fileId(files.database), log: fileId(files.log) };
  return {
    lost() {
      for (const name of ["database", "log"] as const) {
        const there = fileId(files[name]);
        if (there === opened[name]) continue;
        if (there === undefined) return name;
        throw new OpenStarryError(unavailable, {
          detail: `${files[name]} is not the file that the daemon has open: somebody replaced it`,
          hint: "move it away, and the daemon writes its own there again; to use that one, stop the daemon first",
          cause: new Error("replaced"),
        });
      }
      return undefined;
    },
  };
}

function fileId(path: string): string | undefined {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat && `${stat.dev}:${stat.ino}`;
}
