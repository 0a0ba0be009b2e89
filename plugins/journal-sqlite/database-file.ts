import { chmodSync, closeSync, constants, fsyncSync, linkSync, lstatSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Database } from "libsql";
import { OpenStarryError } from "../../core/index.js";
import { FILE_NAME, hintFor, isDamage, isDiskFull } from "./failures.js";
import { createTables, type Tables } from "./tables.js";

/** The class of the package, which is loaded only when a journal is opened. */
export type DatabaseClass = new (path: string) => Database;

/** In SQLite's header: tells this file from any other database. */
const APPLICATION_ID = 0x4f53_4a31;
const SCHEMA_VERSION = 2;

/** Ids of events go on from the greatest: the newest event is never pruned, so none is given twice. */
const SCHEMA = `
CREATE TABLE agents (
  seq INTEGER PRIMARY KEY, agent_id TEXT NOT NULL UNIQUE, record TEXT NOT NULL, checksum INTEGER
) STRICT;
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

export interface JournalFile {
  readonly database: Database;
  readonly tables: Tables;
  readonly lastEventId: number;
}

/**
 * Opens `journal.db` in a folder, and makes it when nothing is there. What is there and is not a sound
 * journal of a known version is refused with `home_unusable` and left as it is.
 */
export function openJournalFile(DatabaseOf: DatabaseClass, dataDir: string): JournalFile {
  const path = join(dataDir, FILE_NAME);
  const size = fileSize(path);
  if (size === undefined) create(path, dataDir, (unfinished) => makeEmpty(DatabaseOf, unfinished));
  else if (size === 0) throw refused(path, "is empty, and a journal never is");
  for (const sidecar of [`${path}-wal`, `${path}-shm`]) fileSize(sidecar);
  try {
    // SQLite gives its -wal and -shm files the mode of the database.
    chmodSync(path, 0o600);
    const database = new DatabaseOf(path);
    verify(database, path, size ?? 0);
    // NORMAL leaves the log to the system's cache, where it outlives this process; who wants more syncs it.
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 250");
    migrate(database);
    const tables = createTables(database);
    return { database, tables, lastEventId: tables.lastEventId() };
  } catch (cause) {
    if (cause instanceof OpenStarryError) throw cause;
    if (isDamage(cause)) throw refused(path, "cannot be read as a journal", cause);
    throw refused(path, "cannot be used", cause, hintFor(cause));
  }
}

/**
 * Writes all that the database holds to `journal.db`, whose name and file are gone, and opens that. The
 * sidecars that are left belong to the file that is gone.
 */
export function rewriteJournalFile(
  DatabaseOf: DatabaseClass,
  dataDir: string,
  { database }: JournalFile,
): JournalFile {
  const path = join(dataDir, FILE_NAME);
  for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true });
  create(path, dataDir, (unfinished) => {
    database.exec(`VACUUM INTO '${unfinished.replaceAll("'", "''")}'`);
    syncFile(unfinished);
  });
  return openJournalFile(DatabaseOf, dataDir);
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
function create(path: string, dataDir: string, fill: (unfinished: string) => void): void {
  if (fileSize(`${path}-wal`)) {
    throw refused(path, `is missing while ${FILE_NAME}-wal, which belongs to it, is there`);
  }
  const unfinished = `${path}.new`;
  try {
    for (const suffix of ["", "-journal"]) rmSync(unfinished + suffix, { force: true });
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    closeSync(openSync(unfinished, flags, 0o600));
    fill(unfinished);
    // A link, unlike a rename, cannot replace a journal that came from elsewhere meanwhile.
    linkSync(unfinished, path);
    rmSync(unfinished);
    // A name is only durable when its folder is.
    syncFile(dataDir);
  } catch (cause) {
    const hint = isDiskFull(cause)
      ? hintFor(cause)
      : "make the folder writable, or choose another with --home";
    throw refused(path, "cannot be made", cause, hint);
  }
}

function makeEmpty(DatabaseOf: DatabaseClass, path: string): void {
  const database = new DatabaseOf(path);
  database.exec(`PRAGMA synchronous = FULL; BEGIN; ${SCHEMA} COMMIT`);
  database.close();
}

function syncFile(path: string): void {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
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
  // Of the agents also that ids and index agree: a record under a wrong id would be nobody's.
  const checks = size > FULL_CHECK_MAX_BYTES ? [] : ["quick_check(1)"];
  for (const check of [...checks, "integrity_check('agents')"]) {
    const damage = pragma(database, check);
    if (damage !== "ok") throw refused(path, `is damaged: ${damage}`);
  }
}

/** Version 1 had no checksums; records get theirs when they are written next. */
function migrate(database: Database): void {
  if (Number(pragma(database, "user_version")) >= SCHEMA_VERSION) return;
  database.exec(
    `BEGIN IMMEDIATE; ALTER TABLE agents ADD COLUMN checksum INTEGER; PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`,
  );
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
    hint: hint ?? DAMAGE_HINT,
    cause,
  });
}

const DAMAGE_HINT =
  "it was left as it is, and agents that run are left alone. Put a backup in its place, or move it away " +
  "(with its -wal and -shm) and start: agents that still run are then named by status, not started a " +
  "second time, and ended by openstarry-daemon agent rm ID";
