import type { Database, Statement } from "libsql";
import type { StateQuery } from "../../core/index.js";
import { aboveKeys, firstKey } from "../kit/key-range.js";
import type { Row } from "../kit/state-plan.js";

export interface NamespaceRow {
  id: number;
  name: string;
  /** Of its last change. */
  version: number;
  /** Deletions up to this one are not known any more. */
  pruned: number;
}

/** The SQL of the store, prepared once. Everything throws what SQLite throws. */
export interface Tables {
  transaction<T>(act: () => T): T;
  space(name: string): NamespaceRow | undefined;
  /** The version before the first of a new space. */
  initialVersion(): number;
  /** There must be none of this name. */
  addSpace(name: string): NamespaceRow;
  setVersion(space: NamespaceRow, version: number): void;
  get(name: string, key: string): Row | undefined;
  row(space: NamespaceRow, key: string): Row | undefined;
  put(space: NamespaceRow, row: Row): void;
  list(space: NamespaceRow, query: StateQuery, nowMs: number): { rows: Row[]; more: boolean };
  /** Versions of the keys that changed after this one, in order. */
  changedAfter(space: NamespaceRow, version: number, limit: number): number[];
  /** `undefined` when the key has changed again since. */
  atVersion(space: NamespaceRow, version: number): Row | undefined;
  /** Some of the entries whose time is over, by the name of their namespace. */
  expired(nowMs: number, limit: number): { name: string; key: string }[];
  /** Forgets all but the newest deletions. */
  prune(name: string, keep: number): void;
  names(): string[];
  drop(name: string): void;
  /** The id of a namespace that was dropped and still has rows. */
  dropped(): number | undefined;
  /** Removes so many of its rows, and it with the last. */
  clear(droppedId: number, limit: number): void;
}

const MAX_PAGE_BYTES = 4 * 2 ** 20;

/** Texts come as their bytes: the package ends the process when one that it decodes is not UTF-8. */
type Columns = Record<string, ArrayBuffer | number | null | undefined>;

export function createTables(database: Database): Tables {
  const sql = prepareAll(database);
  const rows = (statement: Statement<unknown[]>, ...given: unknown[]) =>
    (statement.all(...given) as Columns[]).map(rowOf);
  const space = (name: string): NamespaceRow | undefined => {
    const [found] = sql.space.all(name) as Columns[];
    return (
      found && { id: Number(found.id), name, version: Number(found.version), pruned: Number(found.pruned) }
    );
  };

  return {
    transaction(act) {
      database.exec("BEGIN IMMEDIATE");
      try {
        const result = act();
        database.exec("COMMIT");
        return result;
      } catch (error) {
        // SQLite has rolled back by itself where it could not go on (disk full, I/O error).
        if (database.inTransaction) database.exec("ROLLBACK");
        throw error;
      }
    },
    space,
    initialVersion: () => Number((sql.floor.all() as Columns[])[0]?.version),
    addSpace(name) {
      sql.addSpace.run(name);
      return space(name) as NamespaceRow;
    },
    setVersion: ({ id }, version) => void sql.setVersion.run(version, id),
    get: (name, key) => rows(sql.get, name, Buffer.from(key))[0],
    row: ({ id }, key) => rows(sql.row, id, Buffer.from(key))[0],
    put: ({ id }, { key, version, updatedAtMs, expiresAtMs, json }) =>
      void sql.put.run(
        id,
        Buffer.from(key),
        version,
        updatedAtMs,
        expiresAtMs ?? null,
        json === undefined ? null : Buffer.from(json),
      ),
    list({ id }, { prefix = "", after, limit }, nowMs) {
      const from = firstKey(prefix, after);
      const sizes = sql.sizes.all(id, from, aboveKeys(prefix), nowMs, limit + 1) as Columns[];
      const { count, last } = firstPage(sizes, limit);
      if (last === undefined) return { rows: [], more: false };
      return { rows: rows(sql.list, id, from, last, nowMs), more: count < sizes.length };
    },
    changedAfter: ({ id }, version, limit) =>
      (sql.changedAfter.all(id, version, limit) as Columns[]).map((it) => Number(it.version)),
    atVersion: ({ id }, version) => rows(sql.atVersion, id, version)[0],
    expired: (nowMs, limit) =>
      (sql.expired.all(nowMs, limit) as Columns[]).map((it) => ({ name: text(it.name), key: text(it.key) })),
    prune(name, keep) {
      const found = space(name);
      const [oldest] = found ? (sql.surplus.all(found.id, keep) as Columns[]) : [];
      if (!found || !oldest) return;
      sql.setPruned.run(Number(oldest.version), found.id);
      sql.prune.run(found.id, Number(oldest.version));
    },
    names: () => (sql.names.all() as Columns[]).map(({ name }) => text(name)),
    drop(name) {
      sql.raiseFloor.run(name);
      sql.unname.run(name);
    },
    dropped() {
      const [found] = sql.dropped.all() as Columns[];
      return found && Number(found.id);
    },
    clear(droppedId, limit) {
      const { changes } = sql.clear.run(droppedId, limit);
      if (changes < limit) sql.removeSpace.run(droppedId);
    },
  };
}

/** How much of it makes a page, by number and by size. */
function firstPage(sizes: Columns[], limit: number): { count: number; last: Buffer | undefined } {
  let count = 0;
  for (let bytes = 0; count < Math.min(limit, sizes.length); count++) {
    bytes += Number(sizes[count]?.bytes);
    if (count > 0 && bytes > MAX_PAGE_BYTES) break;
  }
  const last = sizes[count - 1]?.key;
  return { count, last: last instanceof ArrayBuffer ? Buffer.from(last) : undefined };
}

function rowOf({ key, version, updated_at, expires_at, value }: Columns): Row {
  return {
    key: text(key),
    version: Number(version),
    updatedAtMs: Number(updated_at),
    ...(typeof expires_at === "number" ? { expiresAtMs: expires_at } : {}),
    ...(value instanceof ArrayBuffer ? { json: text(value) } : {}),
  };
}

function text(bytes: Columns[string]): string {
  return Buffer.from((bytes ?? []) as ArrayBuffer).toString("utf8");
}

const ROW = "key, entries.version, updated_at, expires_at, value";
const LIVE = "value IS NOT NULL AND (expires_at IS NULL OR expires_at > ?)";

/** A statement with one parameter takes no bytes: the package reads a lone Buffer as named parameters. */
function prepareAll(database: Database) {
  const prepare = (words: string): Statement<unknown[]> => database.prepare(words);
  return {
    space: prepare("SELECT id, version, pruned FROM namespaces WHERE name = ?"),
    floor: prepare("SELECT version FROM floor"),
    addSpace: prepare("INSERT INTO namespaces (name, version, pruned) SELECT ?, version, version FROM floor"),
    setVersion: prepare("UPDATE namespaces SET version = ? WHERE id = ?"),
    get: prepare(`SELECT ${ROW} FROM namespaces JOIN entries ON namespace = id WHERE name = ? AND key = ?`),
    row: prepare(`SELECT ${ROW} FROM entries WHERE namespace = ? AND key = ?`),
    put: prepare(
      `INSERT INTO entries (namespace, key, version, updated_at, expires_at, value) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (namespace, key) DO UPDATE SET version = excluded.version, updated_at = excluded.updated_at,
       expires_at = excluded.expires_at, value = excluded.value`,
    ),
    sizes: prepare(
      `SELECT key, length(value) AS bytes FROM entries
       WHERE namespace = ? AND key >= ? AND key < ? AND ${LIVE} ORDER BY key LIMIT ?`,
    ),
    list: prepare(
      `SELECT ${ROW} FROM entries WHERE namespace = ? AND key >= ? AND key <= ? AND ${LIVE} ORDER BY key`,
    ),
    changedAfter: prepare(
      "SELECT version FROM entries WHERE namespace = ? AND version > ? ORDER BY version LIMIT ?",
    ),
    atVersion: prepare(`SELECT ${ROW} FROM entries WHERE namespace = ? AND version = ?`),
    expired: prepare(
      `SELECT CAST(name AS BLOB) AS name, key FROM entries JOIN namespaces ON namespace = id
       WHERE expires_at <= ? AND name IS NOT NULL ORDER BY expires_at LIMIT ?`,
    ),
    surplus: prepare(
      "SELECT version FROM entries WHERE namespace = ? AND value IS NULL ORDER BY version DESC LIMIT 1 OFFSET ?",
    ),
    setPruned: prepare("UPDATE namespaces SET pruned = ? WHERE id = ?"),
    prune: prepare("DELETE FROM entries WHERE namespace = ? AND value IS NULL AND version <= ?"),
    names: prepare("SELECT CAST(name AS BLOB) AS name FROM namespaces WHERE name IS NOT NULL"),
    raiseFloor: prepare(
      `UPDATE floor SET version =
       max(version, coalesce((SELECT version + 1 FROM namespaces WHERE name = ?), 0))`,
    ),
    unname: prepare("UPDATE namespaces SET name = NULL WHERE name = ?"),
    dropped: prepare("SELECT id FROM namespaces WHERE name IS NULL LIMIT 1"),
    clear: prepare("DELETE FROM entries WHERE seq IN (SELECT seq FROM entries WHERE namespace = ? LIMIT ?)"),
    removeSpace: prepare("DELETE FROM namespaces WHERE id = ?"),
  };
}
