import { chmodSync, closeSync, constants, linkSync, lstatSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Database } from "libsql";
import { OpenStarryError } from "../../core/index.js";
import { FILE_NAME } from "./failures.js";

/** The class of the package, which is loaded only when a journal is opened. */
export type DatabaseClass = new (path: string) => Database;

/** In SQLite's header: tells this file from any other database. */
const APPLICATION_ID = 0x4f53_4a31;
const SCHEMA_VERSION = 1;

/** Ids of events go on from the greatest: the newest event is never pruned, so none is given twice. */
const SCHEMA = `
CREATE TABLE agents (seq INTEGER PRIMARY KEY, agent_id TEXT NOT NULL UNIQUE, record TEXT NOT NULL) STRICT;
CREATE TABLE runs (
  seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, agent_id TEXT NOT NULL, record TEXT NOT NULL
) STRICT;
CREATE INDEX runs_of_agent ON runs (agent_id, seq);
CREATE TABLE events (id INTEGER PRIMARY KEY, agent_id TEXT, record TEXT NOT NULL) STRICT;
CREATE INDEX events_of_agent ON events (agent_id, id) WHERE agent_id IS NOT NULL;
CREATE TABLE memos (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL, expires_at INTEGER NOT NULL) STRICT;
PRAGMA application_id = ${APPLICATION_ID};
PRAGMA user_version = ${SCHEMA_VERSION};
`;

/** Above this only the agents are checked for damage at start: a full check reads the whole file. */
const FULL_CHECK_MAX_BYTES = 64 * 2 ** 20;

/**
 * Opens `journal.db` in a folder, and makes it when nothing is there. What is there and is not a sound
 * journal of a known version is refused with `home_unusable` and left as it is.
 */
export function openJournalFile(DatabaseOf: DatabaseClass, dataDir: string): Database {
  const path = join(dataDir, FILE_NAME);
  const size = fileSize(path);
  if (size === undefined) create(DatabaseOf, path);
  else if (size === 0) throw refused(path, "is empty, and a journal never is");
  for (const sidecar of [`${path}-wal`, `${path}-shm`]) fileSize(sidecar);
  // SQLite gives its -wal and -shm files the mode of the database.
  chmodSync(path, 0o600);
  try {
    const database = new DatabaseOf(path);
    verify(database, path, size ?? 0);
    // NORMAL leaves the log to the system's cache, where it outlives this process; who wants more syncs it.
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 250");
    return database;
  } catch (cause) {
    throw cause instanceof OpenStarryError ? cause : refused(path, "cannot be read as a journal", cause);
  }
}

/** `undefined` when nothing is there. Anything but a regular file is refused. */
function fileSize(path: string): number | undefined {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat && !stat.isFile()) throw refused(path, "is not a regular file (a symbolic link is not followed)");
  return stat?.size;
}

/**
 * The file gets its name only when it is complete, so that an empty or half-made one is always damage
 * and never the trace of a crash at the first start.
 */
function create(DatabaseOf: DatabaseClass, path: string): void {
  if (fileSize(`${path}-wal`)) {
    throw refused(path, `is missing while ${FILE_NAME}-wal, which belongs to it, is there`);
  }
  const unfinished = `${path}.new`;
  try {
    for (const suffix of ["", "-journal"]) rmSync(unfinished + suffix, { force: true });
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    closeSync(openSync(unfinished, flags, 0o600));
    const database = new DatabaseOf(unfinished);
    database.exec(`PRAGMA synchronous = FULL; BEGIN; ${SCHEMA} COMMIT`);
    database.close();
    // A link, unlike a rename, cannot replace a journal that came from elsewhere meanwhile.
    linkSync(unfinished, path);
    rmSync(unfinished);
  } catch (cause) {
    throw refused(path, "cannot be made", cause, "make the folder writable, or choose another with --home");
  }
}

function verify(database: Database, path: string, size: number): void {
  const applicationId = pragma(database, "application_id");
  const version = Number(pragma(database, "user_version"));
  if (applicationId !== APPLICATION_ID) throw refused(path, "is a database, but not a journal");
  if (version > SCHEMA_VERSION) {
    throw refused(
      path,
      `has schema version ${version}; this daemon knows versions up to ${SCHEMA_VERSION}`,
      undefined,
      "start the newer daemon that wrote it, or choose another folder with --home",
    );
  }
  if (version < 1) throw refused(path, `has schema version ${version}, which no daemon ever wrote`);
  const damage = pragma(database, size > FULL_CHECK_MAX_BYTES ? "quick_check('agents')" : "quick_check(1)");
  if (damage !== "ok") throw refused(path, `is damaged: ${damage}`);
}

/** The package ignores `simple`, and adds a field of its own to rows of `get`. */
function pragma(database: Database, name: string): unknown {
  const [row] = database.prepare(`PRAGMA ${name}`).all() as Record<string, unknown>[];
  return row && Object.values(row)[0];
}

function refused(path: string, what: string, cause?: unknown, hint?: string): OpenStarryError {
  const why = cause instanceof Error ? `: ${cause.message}` : "";
  return new OpenStarryError("home_unusable", {
    detail: `${path} ${what}${why}`,
    hint:
      hint ??
      `it was left as it is; put a backup in its place, or move it away (with its -wal and -shm) to start with no agents`,
    cause,
  });
}
