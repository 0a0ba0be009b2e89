import type { Database, Statement } from "libsql";

/** A subscription of a persistent session. */
export interface StoredSubscription {
  /** The filter as the client wrote it. */
  filter: string;
  qos: 0 | 1;
}

/** The retained message of a topic, which every new subscriber gets. */
export interface Retained {
  topic: string;
  /** The name of the identity that published the message. */
  owner: string;
  qos: 0 | 1;
  payload: Uint8Array;
}

/** The number of retained messages and their total size. */
export interface RetainedTotals {
  messages: number;
  bytes: number;
}

/** The SQL of MQTT sessions and retained messages. Synchronous; changes are durable once the log is synced. */
export interface MqttTables {
  transaction<T>(act: () => T): T;
  subscriptions(session: string): StoredSubscription[];
  addSubscription(session: string, owner: string, it: StoredSubscription, nowMs: number): void;
  removeSubscription(session: string, filter: string): void;
  removeSession(session: string): void;
  /** Stores when the session was last used. */
  touch(session: string, nowMs: number): void;
  /** Returns the sessions of an identity, the least recently used first. */
  sessionsOf(owner: string): string[];
  retainedTopics(): string[];
  retained(topic: string): Retained | undefined;
  retain(message: Retained): void;
  removeRetained(topic: string): void;
  /** Returns the totals of one identity; without an owner, of all. */
  retainedTotals(owner?: string): RetainedTotals;
}

const SCHEMA = `
CREATE TABLE IF NOT EXISTS mqtt_subscriptions (
  session TEXT NOT NULL, filter TEXT NOT NULL, qos INTEGER NOT NULL, owner TEXT NOT NULL,
  used_at INTEGER NOT NULL, PRIMARY KEY (session, filter)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS mqtt_sessions ON mqtt_subscriptions (owner, session, used_at);
CREATE TABLE IF NOT EXISTS mqtt_retained (
  id INTEGER PRIMARY KEY, topic TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, qos INTEGER NOT NULL,
  bytes INTEGER NOT NULL, payload BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS mqtt_retained_space ON mqtt_retained (owner, bytes);
`;

type Row = Record<string, unknown>;

/** Creates the tables if they do not exist, and prepares the statements. */
export function createMqttTables(database: Database): MqttTables {
  database.exec(SCHEMA);
  const sql = prepareAll(database);
  const all = (statement: Statement<unknown[]>, ...values: unknown[]) => statement.all(...values) as Row[];
  return {
    transaction(act) {
      database.exec("BEGIN IMMEDIATE");
      try {
        const done = act();
        database.exec("COMMIT");
        return done;
      } catch (error) {
        if (database.inTransaction) database.exec("ROLLBACK");
        throw error;
      }
    },
    subscriptions: (session) =>
      all(sql.subscriptions, session).map(({ filter, qos }) => ({
        filter: text(filter),
        qos: qosOf(qos),
      })),
    addSubscription: (session, owner, { filter, qos }, nowMs) =>
      void sql.addSubscription.run(session, filter, qos, owner, nowMs),
    removeSubscription: (session, filter) => void sql.removeSubscription.run(session, filter),
    removeSession: (session) => void sql.removeSession.run(session),
    touch: (session, nowMs) => void sql.touch.run(nowMs, session),
    sessionsOf: (owner) => all(sql.sessionsOf, owner).map(({ session }) => text(session)),
    retainedTopics: () => all(sql.retainedTopics).map(({ topic }) => text(topic)),
    retained(topic) {
      const [row] = all(sql.retained, topic);
      if (!row) return undefined;
      const payload = new Uint8Array(row["payload"] as ArrayBuffer);
      return { topic, owner: text(row["owner"]), qos: qosOf(row["qos"]), payload };
    },
    retain: ({ topic, owner, qos, payload }) =>
      void sql.retain.run(topic, owner, qos, payload.byteLength, Buffer.from(payload)),
    removeRetained: (topic) => void sql.removeRetained.run(topic),
    retainedTotals(owner) {
      const [row] = owner === undefined ? all(sql.retainedTotals) : all(sql.retainedTotalsOf, owner);
      return { messages: Number(row?.["messages"] ?? 0), bytes: Number(row?.["bytes"] ?? 0) };
    },
  };
}

/** Decodes a text that was read as bytes: the driver ends the process when a text that it decodes is not UTF-8. */
function text(bytes: unknown): string {
  return Buffer.from(bytes as ArrayBuffer).toString("utf8");
}

function qosOf(value: unknown): 0 | 1 {
  return value === 0 ? 0 : 1;
}

const TOTALS = "SELECT count(*) AS messages, coalesce(sum(bytes), 0) AS bytes FROM mqtt_retained";

function prepareAll(database: Database) {
  const prepare = (words: string): Statement<unknown[]> => database.prepare(words);
  return {
    subscriptions: prepare(
      "SELECT CAST(filter AS BLOB) AS filter, qos FROM mqtt_subscriptions WHERE session = ?",
    ),
    addSubscription: prepare(
      `INSERT INTO mqtt_subscriptions (session, filter, qos, owner, used_at) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (session, filter) DO UPDATE SET qos = excluded.qos, used_at = excluded.used_at`,
    ),
    removeSubscription: prepare("DELETE FROM mqtt_subscriptions WHERE session = ? AND filter = ?"),
    removeSession: prepare("DELETE FROM mqtt_subscriptions WHERE session = ?"),
    touch: prepare("UPDATE mqtt_subscriptions SET used_at = ? WHERE session = ?"),
    sessionsOf: prepare(
      "SELECT CAST(session AS BLOB) AS session FROM mqtt_subscriptions WHERE owner = ? GROUP BY mqtt_subscriptions.session ORDER BY max(used_at)",
    ),
    retainedTopics: prepare("SELECT CAST(topic AS BLOB) AS topic FROM mqtt_retained ORDER BY id"),
    retained: prepare("SELECT CAST(owner AS BLOB) AS owner, qos, payload FROM mqtt_retained WHERE topic = ?"),
    retain: prepare(
      `INSERT INTO mqtt_retained (topic, owner, qos, bytes, payload) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (topic) DO UPDATE SET owner = excluded.owner, qos = excluded.qos, bytes = excluded.bytes,
       payload = excluded.payload`,
    ),
    removeRetained: prepare("DELETE FROM mqtt_retained WHERE topic = ?"),
    retainedTotals: prepare(TOTALS),
    retainedTotalsOf: prepare(`${TOTALS} WHERE owner = ?`),
  };
}
