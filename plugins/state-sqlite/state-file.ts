import type { DatabaseKind } from "../kit/sqlite/database-kind.js";

/**
 * Keys are bytes, so that their order is the contract's. A deleted key keeps its row, with no value, until the
 * namespace has too many of those; `pruned` is the newest deletion that is not known any more. A namespace that was
 * dropped has lost its name, and its rows go bit by bit. `floor` lies above the versions of all that were dropped: a
 * later one of the same name gives no version a second time.
 */
const SCHEMA = `
CREATE TABLE namespaces (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, version INTEGER NOT NULL, pruned INTEGER NOT NULL
) STRICT;
CREATE TABLE floor (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL) STRICT;
INSERT INTO floor VALUES (1, 0);
CREATE TABLE entries (
  seq INTEGER PRIMARY KEY, namespace INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL,
  updated_at INTEGER NOT NULL, expires_at INTEGER, value BLOB
) STRICT;
CREATE UNIQUE INDEX entries_by_key ON entries (namespace, key);
CREATE UNIQUE INDEX entries_by_version ON entries (namespace, version);
CREATE INDEX entries_by_end ON entries (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX deletions ON entries (namespace, version) WHERE value IS NULL;
`;

/** `state.db`, in the daemon's home. */
export const stateFile: DatabaseKind = {
  fileName: "state.db",
  noun: "a state store",
  unavailable: "state_unavailable",
  applicationId: 0x4f53_5331,
  schemaVersion: 1,
  schema: SCHEMA,
  migrations: {},
  alwaysChecked: "namespaces",
  damageHint:
    "it was left as it is. Put a backup in its place, or move it away (with its -wal and -shm) and start: " +
    "agents then find an empty store",
};
