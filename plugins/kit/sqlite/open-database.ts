import type { Database } from "libsql";
import { type DatabaseClass, openDatabaseFile, rewriteDatabaseFile } from "./database-file.js";
import type { DatabaseKind } from "./database-kind.js";
import { createLogSync, type LogSync } from "./log-sync.js";
import { watchOpenFiles } from "./open-files.js";

/** A database file that is open. `T` is what its user has prepared on it. */
export interface OpenDatabase<T> extends LogSync {
  readonly tables: T;
  /**
   * For writing: what is written must be found again, so files that were removed under the daemon are made
   * anew, with all that was in them.
   */
  ready(): T;
  /** Folds the write-ahead log into the file and closes it. */
  close(): void;
}

/** `prepare` is called again, with `rewritten`, when the file had to be made anew. */
export async function openDatabase<T>(
  kind: DatabaseKind,
  dataDir: string,
  prepare: (database: Database, rewritten: boolean) => T,
): Promise<OpenDatabase<T>> {
  const { default: DatabaseOf }: { default: DatabaseClass } = await import("libsql");
  const log = createLogSync(kind, dataDir);
  const open = (rewritten: boolean) =>
    openDatabaseFile(DatabaseOf, dataDir, kind, (database) => {
      const tables = prepare(database, rewritten);
      readFrom(database);
      return { database, tables, files: watchOpenFiles(kind, dataDir) };
    });
  let file = open(false);

  const ready = (): T => {
    const lost = file.files.lost();
    if (lost === undefined) return file.tables;
    log.close();
    if (lost === "log") {
      // Leaving the mode folds the log into the file; entering it makes a new one.
      file.database.exec("PRAGMA journal_mode = DELETE; PRAGMA journal_mode = WAL");
      readFrom(file.database);
      file.files = watchOpenFiles(kind, dataDir);
    } else {
      rewriteDatabaseFile(dataDir, kind, file.database);
      file = open(true);
    }
    return file.tables;
  };

  return {
    get tables() {
      return file.tables;
    },
    ready,
    sync: log.sync,
    close() {
      try {
        ready();
        // The package closes a file only when its statements are collected; this leaves nothing to lose.
        file.database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
      } finally {
        log.close();
        file.database.close();
      }
    },
  };
}

/** The log is there as soon as something was read. */
function readFrom(database: Database): void {
  database.prepare("SELECT count(*) FROM sqlite_schema").all();
}
