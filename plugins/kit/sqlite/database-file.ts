import { chmodSync, closeSync, constants, fsyncSync, linkSync, lstatSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Database } from "libsql";
import { OpenStarryError } from "../../../core/index.js";
import type { DatabaseKind } from "./database-kind.js";
import { hintFor, isDamage, isDiskFull } from "./failures.js";

/** The class of the package, which is loaded only when a database is opened. */
export type DatabaseClass = new (path: string) => Database;

/** Above this only one table is checked for damage at start: a full check reads the whole file. */
const FULL_CHECK_MAX_BYTES = 64 * 2 ** 20;

/**
 * Opens the kind's file in a folder, and makes it when nothing is there. What is there and is not a sound
 * file of this kind and of a known version is refused with `home_unusable` and left as it is. `use` has its
 * first look at it; what that throws is a refusal too.
 */
export function openDatabaseFile<T>(
  DatabaseOf: DatabaseClass,
  dataDir: string,
  kind: DatabaseKind,
  use: (database: Database) => T,
): T {
  const path = join(dataDir, kind.fileName);
  const size = fileSize(kind, path);
  if (size === undefined) create(kind, dataDir, (unfinished) => makeEmpty(DatabaseOf, kind, unfinished));
  else if (size === 0) throw refused(kind, path, `is empty, and ${kind.noun} never is`);
  fileSize(kind, `${path}-shm`);
  // With a log, the last page may be in there.
  const isWhole = !fileSize(kind, `${path}-wal`);
  try {
    // SQLite gives its -wal and -shm files the mode of the database.
    chmodSync(path, 0o600);
    const database = new DatabaseOf(path);
    verify(kind, database, path, size ?? 0);
    if (isWhole) verifyEnd(kind, database, path, size ?? 0);
    // NORMAL leaves the log to the system's cache, where it outlives this process; who wants more syncs it.
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 250");
    migrate(kind, database);
    return use(database);
  } catch (cause) {
    if (cause instanceof OpenStarryError) throw cause;
    if (isDamage(cause)) throw refused(kind, path, `cannot be read as ${kind.noun}`, cause);
    throw refused(kind, path, "cannot be used", cause, hintFor(kind, cause));
  }
}

/**
 * Writes all that the database holds to its file, whose name and file are gone. The sidecars that are left
 * belong to the file that is gone.
 */
export function rewriteDatabaseFile(dataDir: string, kind: DatabaseKind, database: Database): void {
  const path = join(dataDir, kind.fileName);
  for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true });
  create(kind, dataDir, (unfinished) => {
    database.exec(`VACUUM INTO '${unfinished.replaceAll("'", "''")}'`);
    syncFile(unfinished);
  });
}

/** `undefined` when nothing is there. Anything but a regular file is refused. */
function fileSize(kind: DatabaseKind, path: string): number | undefined {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat && !stat.isFile())
    throw refused(kind, path, "is not a regular file (a symbolic link is not followed)");
  return stat?.size;
}

/**
 * The file gets its name only when it is complete, so that an empty or half-made one is always damage
 * and never the trace of a crash at the first start.
 */
function create(kind: DatabaseKind, dataDir: string, fill: (unfinished: string) => void): void {
  const path = join(dataDir, kind.fileName);
  if (fileSize(kind, `${path}-wal`)) {
    throw refused(kind, path, `is missing while ${kind.fileName}-wal, which belongs to it, is there`);
  }
  const unfinished = `${path}.new`;
  try {
    for (const suffix of ["", "-journal"]) rmSync(unfinished + suffix, { force: true });
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    closeSync(openSync(unfinished, flags, 0o600));
    fill(unfinished);
    // A link, unlike a rename, cannot replace a file that came from elsewhere meanwhile.
    linkSync(unfinished, path);
    rmSync(unfinished);
    // A name is only durable when its folder is.
    syncFile(dataDir);
  } catch (cause) {
    const hint = isDiskFull(cause)
      ? hintFor(kind, cause)
      : "make the folder writable, or choose another with --home";
    throw refused(kind, path, "cannot be made", cause, hint);
  }
}

function makeEmpty(DatabaseOf: DatabaseClass, kind: DatabaseKind, path: string): void {
  const database = new DatabaseOf(path);
  const marks = `PRAGMA application_id = ${kind.applicationId}; PRAGMA user_version = ${kind.schemaVersion};`;
  database.exec(`PRAGMA synchronous = FULL; BEGIN; ${kind.schema} ${marks} COMMIT`);
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

function verify(kind: DatabaseKind, database: Database, path: string, size: number): void {
  const applicationId = pragma(database, "application_id");
  const version = Number(pragma(database, "user_version"));
  if (applicationId !== kind.applicationId) throw refused(kind, path, `is a database, but not ${kind.noun}`);
  if (version > kind.schemaVersion) {
    throw refused(
      kind,
      path,
      `has schema version ${version}; this daemon knows versions up to ${kind.schemaVersion}`,
      undefined,
      "start the newer daemon that wrote it, or choose another folder with --home",
    );
  }
  if (version < 1) throw refused(kind, path, `has schema version ${version}, which no daemon ever wrote`);
  // Of this table also that rows and index agree.
  const checks = size > FULL_CHECK_MAX_BYTES ? [] : ["quick_check(1)"];
  for (const check of [...checks, `integrity_check('${kind.alwaysChecked}')`]) {
    const damage = pragma(database, check);
    if (damage !== "ok") throw refused(kind, path, `is damaged: ${damage}`);
  }
}

/** SQLite takes what is missing of the last page for zeros, or fails only when it reads there. */
function verifyEnd(kind: DatabaseKind, database: Database, path: string, size: number): void {
  if (size % Number(pragma(database, "page_size")) === 0) return;
  throw refused(kind, path, "is damaged: it ends in the middle of a page");
}

function migrate(kind: DatabaseKind, database: Database): void {
  const from = Number(pragma(database, "user_version"));
  for (let version = from; version < kind.schemaVersion; version++) {
    database.exec(
      `BEGIN IMMEDIATE; ${kind.migrations[version]} PRAGMA user_version = ${version + 1}; COMMIT`,
    );
  }
}

/** The package ignores `simple`, and adds a field of its own to rows of `get`. */
function pragma(database: Database, name: string): unknown {
  const [row] = database.prepare(`PRAGMA ${name}`).all() as Record<string, unknown>[];
  return row && Object.values(row)[0];
}

function refused(
  kind: DatabaseKind,
  path: string,
  what: string,
  cause?: unknown,
  hint?: string,
): OpenStarryError {
  const why = cause instanceof Error ? `: ${cause.message}` : "";
  return new OpenStarryError("home_unusable", {
    detail: `${path} ${what}${why}`,
    hint: hint ?? kind.damageHint,
    cause,
  });
}
