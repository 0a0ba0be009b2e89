import type { DatabaseKind } from "../kit/sqlite/database-kind.js";

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
`;

/** `journal.db`, in the daemon's home. */
export const journalFile: DatabaseKind = {
  fileName: "journal.db",
  noun: "a journal",
  unavailable: "journal_unavailable",
  applicationId: 0x4f53_4a31,
  schemaVersion: 2,
  schema: SCHEMA,
  // Version 1 had no checksums; records get theirs when they are written next.
  migrations: { 1: "ALTER TABLE agents ADD COLUMN checksum INTEGER;" },
  // A record under a wrong id would be nobody's.
  alwaysChecked: "agents",
  damageHint:
    "it was left as it is, and agents that run are left alone. Put a backup in its place, or move it away " +
    "(with its -wal and -shm) and start: agents that still run are then named by status, not started a " +
    "second time, and ended by openstarry-daemon agent rm ID",
};
