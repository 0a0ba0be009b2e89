import type { DatabaseKind } from "../../../kit/sqlite/database-kind.js";

/**
 * Texts are bytes: the package ends the process when a text that it decodes is not UTF-8. The sequence of
 * `messages` is set before the first one, so that a file that is made anew gives out greater positions than the
 * one before. `unsettled` holds what lies before a group's cursor and is not done with.
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

/** `bus.db`, in the broker's folder. */
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
    "it was left as it is. Put a backup in its place, or move it away (with its -wal and -shm): the bus then " +
    "begins empty",
};
