import type { ErrorCode } from "../../../core/index.js";

/** What a plugin keeps in a database file of its own, in the daemon's home. */
export interface DatabaseKind {
  readonly fileName: string;
  /** As messages call it: "a journal". */
  readonly noun: string;
  /** The error of what cannot be read or written while the daemon runs. */
  readonly unavailable: ErrorCode;
  /** In SQLite's header: tells this file from any other database. */
  readonly applicationId: number;
  readonly schemaVersion: number;
  /** Makes the tables of that version. */
  readonly schema: string;
  /** By version: what makes the next one out of it. */
  readonly migrations: Readonly<Record<number, string>>;
  /** The table that is checked for damage at start, however large the file is. */
  readonly alwaysChecked: string;
  /** What to do about a file that is refused. */
  readonly damageHint: string;
}
