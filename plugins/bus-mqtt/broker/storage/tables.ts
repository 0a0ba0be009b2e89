import type { Database, Statement } from "libsql";
import { type BusMessage, rfc3339 } from "../../../../core/index.js";
import type { ConsumerGroupId, ConsumerGroupRecord, ConsumerGroupUpdate } from "../../../kit/bus/storage.js";

/** The number of messages and their total size. */
export interface Totals {
  messages: number;
  bytes: number;
}

/** The SQL of the bus, prepared once. Every method throws what SQLite throws. */
export interface Tables {
  transaction(act: () => void): void;
  /** Returns the last offset that was assigned. In a new file, sets and returns this one. */
  lastOffset(ifNew: number): number;
  totals(): Totals;
  setTotals(totals: Totals): void;
  append(offset: number, message: BusMessage, size: number): void;
  at(offset: number): BusMessage | undefined;
  /** Returns the first message behind one offset, up to and including another. */
  first(after: number, upTo: number): BusMessage | undefined;
  firstOfTopic(topic: string, after: number, upTo: number): BusMessage | undefined;
  topics(after: number, upTo: number, limit: number): { offset: number; topic: string }[];
  oldest(limit: number): { offset: number; size: number }[];
  removeUpTo(offset: number): void;
  /** Returns the topics of kept messages that start with this text, each once. */
  topicsWithPrefix(prefix: string): string[];
  totalsOfTopic(topic: string): Totals;
  removeTopic(topic: string): void;
  groups(): ConsumerGroupRecord[];
  saveGroup(id: ConsumerGroupId, update: ConsumerGroupUpdate, nowMs: number): void;
  removeGroup(id: string): void;
}

type Columns = Record<string, ArrayBuffer | number | string | null | undefined>;

/** Sorts above every text, since this byte does not occur in UTF-8. */
const ABOVE_ALL = Buffer.from([0xff]);

export function createTables(database: Database): Tables {
  const sql = prepareAll(database);
  const message = (statement: Statement<unknown[]>, ...values: unknown[]) => {
    const [row] = statement.all(...values) as Columns[];
    return row && messageOf(row);
  };
  return {
    transaction(act) {
      database.exec("BEGIN IMMEDIATE");
      try {
        act();
        database.exec("COMMIT");
      } catch (error) {
        // After some errors (disk full, I/O error) SQLite has rolled back already.
        if (database.inTransaction) database.exec("ROLLBACK");
        throw error;
      }
    },
    lastOffset(ifNew) {
      const [row] = sql.lastOffset.all() as Columns[];
      if (!row) sql.setLastOffset.run(ifNew);
      return row ? Number(row.seq) : ifNew;
    },
    totals: () => totalsOf(sql.totals.all()),
    setTotals: ({ messages, bytes }) => void sql.setTotals.run(messages, bytes),
    append: (offset, { topic, at, from, reply_to, payload }, size) =>
      void sql.append.run(
        offset,
        Buffer.from(topic),
        size,
        Date.parse(at),
        from === undefined ? null : Buffer.from(from),
        reply_to === undefined ? null : Buffer.from(reply_to),
        payload,
      ),
    at: (offset) => message(sql.at, offset),
    first: (after, upTo) => message(sql.first, after, upTo),
    firstOfTopic: (topic, after, upTo) => message(sql.firstOfTopic, Buffer.from(topic), after, upTo),
    topics: (after, upTo, limit) =>
      (sql.topics.all(after, upTo, limit) as Columns[]).map(({ position, topic }) => ({
        offset: Number(position),
        topic: text(topic),
      })),
    oldest: (limit) =>
      (sql.oldest.all(limit) as Columns[]).map(({ position, size }) => ({
        offset: Number(position),
        size: Number(size),
      })),
    removeUpTo: (offset) => void sql.removeUpTo.run(offset),
    topicsWithPrefix: (prefix) =>
      (
        sql.topicsWithPrefix.all(
          Buffer.from(prefix),
          Buffer.concat([Buffer.from(prefix), ABOVE_ALL]),
        ) as Columns[]
      ).map(({ topic }) => text(topic)),
    totalsOfTopic: (topic) => totalsOf(sql.totalsOfTopic.all(topic)),
    removeTopic: (topic) => void sql.removeTopic.run(topic),
    groups() {
      const pending = new Map<string, [number, number][]>();
      for (const { group_id, position, attempt } of sql.pending.all() as Columns[]) {
        const ofGroup = pending.get(String(group_id)) ?? [];
        pending.set(String(group_id), ofGroup);
        ofGroup.push([Number(position), Number(attempt)]);
      }
      return (sql.groups.all() as Columns[]).map(({ id, filter, name, cursor }) => ({
        id: String(id),
        filter: text(filter),
        group: text(name),
        cursor: Number(cursor),
        pending: pending.get(String(id)) ?? [],
      }));
    },
    saveGroup({ id, filter, group }, { cursor, pending }, nowMs) {
      sql.saveGroup.run(id, Buffer.from(filter), Buffer.from(group), cursor, nowMs);
      for (const [offset, attempt] of pending) {
        if (attempt === undefined) sql.removePending.run(id, offset);
        else sql.savePending.run(id, offset, attempt);
      }
    },
    removeGroup(id) {
      sql.removeGroup.run(id);
      sql.removeAllPending.run(id);
    },
  };
}

function totalsOf([row]: unknown[]): Totals {
  const { messages, bytes } = row as Columns;
  return { messages: Number(messages), bytes: Number(bytes) };
}

function messageOf({ position, topic, at, sender, reply_to, payload }: Columns): BusMessage {
  return {
    position: String(position),
    topic: text(topic),
    payload: new Uint8Array((payload ?? []) as ArrayBuffer),
    at: rfc3339(Number(at)),
    from: sender === null ? undefined : text(sender),
    reply_to: reply_to === null ? undefined : text(reply_to),
  };
}

function text(bytes: Columns[string]): string {
  return Buffer.from((bytes ?? []) as ArrayBuffer).toString("utf8");
}

const ROW = "position, topic, at, sender, reply_to, payload";

/** A statement with one parameter gets no bytes: the driver takes a lone Buffer for named parameters. */
function prepareAll(database: Database) {
  const prepare = (words: string): Statement<unknown[]> => database.prepare(words);
  return {
    lastOffset: prepare("SELECT seq FROM sqlite_sequence WHERE name = 'messages'"),
    setLastOffset: prepare("INSERT INTO sqlite_sequence (name, seq) VALUES ('messages', ?)"),
    totals: prepare("SELECT messages, bytes FROM totals"),
    setTotals: prepare("UPDATE totals SET messages = ?, bytes = ?"),
    append: prepare(
      "INSERT INTO messages (position, topic, size, at, sender, reply_to, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
    ),
    at: prepare(`SELECT ${ROW} FROM messages WHERE position = ?`),
    first: prepare(
      `SELECT ${ROW} FROM messages WHERE position > ? AND position <= ? ORDER BY position LIMIT 1`,
    ),
    firstOfTopic: prepare(
      `SELECT ${ROW} FROM messages WHERE topic = ? AND position > ? AND position <= ? ORDER BY position LIMIT 1`,
    ),
    topics: prepare(
      "SELECT position, topic FROM messages WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
    ),
    oldest: prepare("SELECT position, size FROM messages ORDER BY position LIMIT ?"),
    removeUpTo: prepare("DELETE FROM messages WHERE position <= ?"),
    topicsWithPrefix: prepare("SELECT DISTINCT topic FROM messages WHERE topic >= ? AND topic < ?"),
    totalsOfTopic: prepare(
      `SELECT count(*) AS messages, coalesce(sum(size), 0) AS bytes FROM messages
       WHERE topic = CAST(? AS BLOB)`,
    ),
    removeTopic: prepare("DELETE FROM messages WHERE topic = CAST(? AS BLOB)"),
    groups: prepare("SELECT id, filter, name, cursor FROM groups ORDER BY used_at"),
    pending: prepare("SELECT group_id, position, attempt FROM unsettled ORDER BY position"),
    saveGroup: prepare(
      `INSERT INTO groups (id, filter, name, cursor, used_at) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET cursor = excluded.cursor, used_at = excluded.used_at`,
    ),
    removeGroup: prepare("DELETE FROM groups WHERE id = ?"),
    savePending: prepare(
      `INSERT INTO unsettled (group_id, position, attempt) VALUES (?, ?, ?)
       ON CONFLICT (group_id, position) DO UPDATE SET attempt = excluded.attempt`,
    ),
    removePending: prepare("DELETE FROM unsettled WHERE group_id = ? AND position = ?"),
    removeAllPending: prepare("DELETE FROM unsettled WHERE group_id = ?"),
  };
}
