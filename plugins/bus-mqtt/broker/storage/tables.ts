import type { Database, Statement } from "libsql";
import { type BusMessage, rfc3339 } from "../../../../core/index.js";
import type { GroupChange, GroupName, GroupRecord } from "../../../kit/bus/storage.js";

/** So many messages, of so many bytes. */
export interface Totals {
  messages: number;
  bytes: number;
}

/** The SQL of the bus, prepared once. Everything throws what SQLite throws. */
export interface Tables {
  transaction(act: () => void): void;
  /** The last position that was given out; a file without one is given this one. */
  last(ifNone: number): number;
  totals(): Totals;
  setTotals(totals: Totals): void;
  append(position: number, message: BusMessage, size: number): void;
  at(position: number): BusMessage | undefined;
  /** The first one after a position, up to and including another. */
  first(after: number, upTo: number): BusMessage | undefined;
  firstOf(topic: string, after: number, upTo: number): BusMessage | undefined;
  topics(after: number, upTo: number, limit: number): { position: number; topic: string }[];
  oldest(limit: number): { position: number; size: number }[];
  removeUpTo(position: number): void;
  /** Topics of kept messages that begin so, each once. */
  topicsUnder(beginning: string): string[];
  sizeOf(topic: string): Totals;
  removeTopic(topic: string): void;
  groups(): GroupRecord[];
  saveGroup(name: GroupName, change: GroupChange, nowMs: number): void;
  removeGroup(id: string): void;
}

type Columns = Record<string, ArrayBuffer | number | string | null | undefined>;

/** Above every text: no UTF-8 has this byte. */
const ABOVE_ALL = Buffer.from([0xff]);

export function createTables(database: Database): Tables {
  const sql = prepareAll(database);
  const message = (statement: Statement<unknown[]>, ...given: unknown[]) => {
    const [row] = statement.all(...given) as Columns[];
    return row && messageOf(row);
  };
  return {
    transaction(act) {
      database.exec("BEGIN IMMEDIATE");
      try {
        act();
        database.exec("COMMIT");
      } catch (error) {
        // SQLite has rolled back by itself where it could not go on (disk full, I/O error).
        if (database.inTransaction) database.exec("ROLLBACK");
        throw error;
      }
    },
    last(ifNone) {
      const [row] = sql.last.all() as Columns[];
      if (!row) sql.setLast.run(ifNone);
      return row ? Number(row.seq) : ifNone;
    },
    totals: () => totalsOf(sql.totals.all()),
    setTotals: ({ messages, bytes }) => void sql.setTotals.run(messages, bytes),
    append: (position, { topic, at, from, reply_to, payload }, size) =>
      void sql.append.run(
        position,
        Buffer.from(topic),
        size,
        Date.parse(at),
        from === undefined ? null : Buffer.from(from),
        reply_to === undefined ? null : Buffer.from(reply_to),
        payload,
      ),
    at: (position) => message(sql.at, position),
    first: (after, upTo) => message(sql.first, after, upTo),
    firstOf: (topic, after, upTo) => message(sql.firstOf, Buffer.from(topic), after, upTo),
    topics: (after, upTo, limit) =>
      (sql.topics.all(after, upTo, limit) as Columns[]).map(({ position, topic }) => ({
        position: Number(position),
        topic: text(topic),
      })),
    oldest: (limit) =>
      (sql.oldest.all(limit) as Columns[]).map(({ position, size }) => ({
        position: Number(position),
        size: Number(size),
      })),
    removeUpTo: (position) => void sql.removeUpTo.run(position),
    topicsUnder: (beginning) =>
      (
        sql.topicsUnder.all(
          Buffer.from(beginning),
          Buffer.concat([Buffer.from(beginning), ABOVE_ALL]),
        ) as Columns[]
      ).map(({ topic }) => text(topic)),
    sizeOf: (topic) => totalsOf(sql.sizeOf.all(topic)),
    removeTopic: (topic) => void sql.removeTopic.run(topic),
    groups() {
      const unsettled = new Map<string, [number, number][]>();
      for (const { group_id, position, attempt } of sql.unsettled.all() as Columns[]) {
        const of = unsettled.get(String(group_id)) ?? [];
        unsettled.set(String(group_id), of);
        of.push([Number(position), Number(attempt)]);
      }
      return (sql.groups.all() as Columns[]).map(({ id, filter, name, cursor }) => ({
        id: String(id),
        filter: text(filter),
        group: text(name),
        cursor: Number(cursor),
        unsettled: unsettled.get(String(id)) ?? [],
      }));
    },
    saveGroup({ id, filter, group }, { cursor, unsettled }, nowMs) {
      sql.saveGroup.run(id, Buffer.from(filter), Buffer.from(group), cursor, nowMs);
      for (const [position, attempt] of unsettled) {
        if (attempt === undefined) sql.settle.run(id, position);
        else sql.unsettle.run(id, position, attempt);
      }
    },
    removeGroup(id) {
      sql.removeGroup.run(id);
      sql.settleAll.run(id);
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
    ...(sender === null ? {} : { from: text(sender) }),
    ...(reply_to === null ? {} : { reply_to: text(reply_to) }),
  };
}

function text(bytes: Columns[string]): string {
  return Buffer.from((bytes ?? []) as ArrayBuffer).toString("utf8");
}

const ROW = "position, topic, at, sender, reply_to, payload";

/** A statement with one parameter takes no bytes: the package reads a lone Buffer as named parameters. */
function prepareAll(database: Database) {
  const prepare = (words: string): Statement<unknown[]> => database.prepare(words);
  return {
    last: prepare("SELECT seq FROM sqlite_sequence WHERE name = 'messages'"),
    setLast: prepare("INSERT INTO sqlite_sequence (name, seq) VALUES ('messages', ?)"),
    totals: prepare("SELECT messages, bytes FROM totals"),
    setTotals: prepare("UPDATE totals SET messages = ?, bytes = ?"),
    append: prepare(
      "INSERT INTO messages (position, topic, size, at, sender, reply_to, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
    ),
    at: prepare(`SELECT ${ROW} FROM messages WHERE position = ?`),
    first: prepare(
      `SELECT ${ROW} FROM messages WHERE position > ? AND position <= ? ORDER BY position LIMIT 1`,
    ),
    firstOf: prepare(
      `SELECT ${ROW} FROM messages WHERE topic = ? AND position > ? AND position <= ? ORDER BY position LIMIT 1`,
    ),
    topics: prepare(
      "SELECT position, topic FROM messages WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
    ),
    oldest: prepare("SELECT position, size FROM messages ORDER BY position LIMIT ?"),
    removeUpTo: prepare("DELETE FROM messages WHERE position <= ?"),
    topicsUnder: prepare("SELECT DISTINCT topic FROM messages WHERE topic >= ? AND topic < ?"),
    sizeOf: prepare(
      `SELECT count(*) AS messages, coalesce(sum(size), 0) AS bytes FROM messages
       WHERE topic = CAST(? AS BLOB)`,
    ),
    removeTopic: prepare("DELETE FROM messages WHERE topic = CAST(? AS BLOB)"),
    groups: prepare("SELECT id, filter, name, cursor FROM groups ORDER BY used_at"),
    unsettled: prepare("SELECT group_id, position, attempt FROM unsettled ORDER BY position"),
    saveGroup: prepare(
      `INSERT INTO groups (id, filter, name, cursor, used_at) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET cursor = excluded.cursor, used_at = excluded.used_at`,
    ),
    removeGroup: prepare("DELETE FROM groups WHERE id = ?"),
    unsettle: prepare(
      `INSERT INTO unsettled (group_id, position, attempt) VALUES (?, ?, ?)
       ON CONFLICT (group_id, position) DO UPDATE SET attempt = excluded.attempt`,
    ),
    settle: prepare("DELETE FROM unsettled WHERE group_id = ? AND position = ?"),
    settleAll: prepare("DELETE FROM unsettled WHERE group_id = ?"),
  };
}
