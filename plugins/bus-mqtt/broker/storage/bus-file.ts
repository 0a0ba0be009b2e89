import type { DatabaseKind } from "../../../kit/sqlite/database-kind.js";

/**
 * Texts are stored as BLOB, since the driver ends the process when a TEXT value that it decodes is not UTF-8. The
 * sequence of `messages` is set before the first insert, so that a new file assigns greater positions than the
 * one that it replaces. `unsettled` holds the pending messages of a group: delivered and not acknowledged.
 */
const SCHEMA = `
CREATE TABLE messages (
  position INTEGER PRIMARY KEY AUTOINCREMENT, topic BLOB NOT NULL, size INTEGER NOT NULL, at INTEGER NOT NULL,
  sender BLOB, reply_to BLOB, payload BLOB NOT NULL
) STRICT;
CREATE INDEX messages_by_topic ON messages (topic, position);
CREATE TABLE totals (one INTEGER PRIMARY KEY CHECK (one = 1), messages INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
INSERT INTO totals VALUES (1, 0, 0);
CREATE TABLE groups (
  id TEXT PRIMARY KEY, filter BLOB NOT NULL, name BLOB NOT NULL, cursor INTEGER NOT NULL, used_at INTEGER NOT NULL
) STRICT;
CREATE TABLE unsettled (
  group_id TEXT NOT NULL, position INTEGER NOT NULL, attempt INTEGER NOT NULL, PRIMARY KEY (group_id, position)
) STRICT, WITHOUT ROWID;
`;

/** `bus.db` in the broker's folder. */
export const busFile: DatabaseKind = {
  fileName: "bus.db",
  noun: "a message bus",
  unavailable: "bus_unavailable",
  applicationId: 0x4f53_4231,
  schemaVersion: 1,
  schema: SCHEMA,
  migrations: {},
  alwaysChecked: "groups",
  damageHint:
    "the file was not changed. Restore a backup, or move the file away (with its -wal and -shm) to start with an " +
    "empty bus",
};
