import type { StateQuery } from "../../core/index.js";
import { aboveKeys, firstKey } from "../kit/key-range.js";
import type { Row } from "../kit/state-plan.js";
import type { Row as Columns, Query } from "./transaction.js";

export interface NamespaceRow {
  id: string;
  /** Of its last change. */
  version: number;
  /** Deletions up to this one are not known any more. */
  pruned: number;
}

/** What has changed in a namespace behind a version. */
export interface ChangesPage {
  /** Absent: there is no such namespace. */
  space?: NamespaceRow;
  /** In order. `isTold` is false for one outside the prefix, and for one whose end is still to be told. */
  changes: { row: Row; isTold: boolean }[];
}

const MAX_PAGE_BYTES = 4 * 2 ** 20;
/** Of changes, which wait in memory for one who reads slowly. */
const CHANGES = 64;
const MAX_CHANGES_BYTES = 2 ** 20;
/** Rows that are cleared away at a time. */
export const STEP = 1_000;

/** The server's clock: the same for all daemons. */
const nowMs = (clock: string) => `floor(extract(epoch FROM ${clock}) * 1000)::bigint`;
/** Stable within a statement, so that an index serves it. */
const NOW = nowMs("statement_timestamp()");
const LIVE = `value IS NOT NULL AND (expires_at IS NULL OR expires_at > ${NOW})`;
const FIELDS = "key, version, updated_at, expires_at, value";

/** The SQL of the store, in the tables of a schema. */
export function createStatements(schema: string) {
  const spaces = `"${schema}".state_namespaces`;
  const entries = `"${schema}".state_entries`;
  const meta = `"${schema}".state_meta`;
  const idOf = `(SELECT id FROM ${spaces} WHERE name = $1)`;
  const query = (name: string, text: string, ...values: unknown[]): Query => ({ name, text, values });

  return {
    get: (name: string, key: string) =>
      query(
        "get",
        `SELECT ${FIELDS} FROM ${entries} WHERE namespace = ${idOf} AND key = $2 AND ${LIVE}`,
        Buffer.from(name),
        Buffer.from(key),
      ),
    /** Planned anew each time: how many are wanted decides how they are found best. */
    list: (name: string, { prefix = "", after, limit }: StateQuery): Query => ({
      text: `SELECT * FROM (
           SELECT page.*, count(*) OVER () AS found, row_number() OVER by_key AS nth,
             sum(octet_length(value)) OVER by_key AS bytes
           FROM (
             SELECT ${FIELDS} FROM ${entries}
             WHERE namespace = ${idOf} AND key >= $2 AND key < $3 AND ${LIVE} ORDER BY key LIMIT ${Math.trunc(limit) + 1}
           ) AS page WINDOW by_key AS (ORDER BY key)
         ) AS sized WHERE nth <= $4 AND (nth = 1 OR bytes <= ${MAX_PAGE_BYTES}) ORDER BY key`,
      values: [Buffer.from(name), firstKey(prefix, after), aboveKeys(prefix), limit],
    }),
    changes: (name: string, version: number, prefix: string) =>
      query(
        "changes",
        `SELECT id, space.version AS head, pruned, page.* FROM ${spaces} AS space LEFT JOIN LATERAL (
           SELECT * FROM (
             SELECT told.*, sum(coalesce(octet_length(value), 0)) OVER (ORDER BY version) AS bytes FROM (
               SELECT key, version, updated_at, expires_at, fits AND (value IS NULL OR ${LIVE}) AS told,
                 CASE WHEN fits THEN value END AS value
               FROM (
                 SELECT *, key >= $3 AND key < $4 AS fits FROM ${entries}
                 WHERE namespace = space.id AND version > $2 ORDER BY version LIMIT ${CHANGES}
               ) AS changed
             ) AS told
           ) AS sized WHERE bytes <= ${MAX_CHANGES_BYTES} OR bytes = octet_length(value)
         ) AS page ON true WHERE name = $1 ORDER BY page.version`,
        Buffer.from(name),
        version,
        firstKey(prefix),
        aboveKeys(prefix),
      ),
    space: (name: string) => query("space", `SELECT * FROM ${spaces} WHERE name = $1`, Buffer.from(name)),
    spaces: (names: readonly string[]) =>
      query(
        "spaces",
        `SELECT * FROM ${spaces} WHERE name = ANY($1::bytea[])`,
        names.map((name) => Buffer.from(name)),
      ),
    names: () => query("names", `SELECT name FROM ${spaces} WHERE name IS NOT NULL`),

    // Within a transaction. Who writes to a namespace locks its row first: versions are committed in their order.
    lock: (name: string) =>
      query("lock", `SELECT * FROM ${spaces} WHERE name = $1 FOR UPDATE`, Buffer.from(name)),
    now: () => query("now", `SELECT ${nowMs("clock_timestamp()")} AS now`),
    initialVersion: () => query("initial_version", `SELECT floor FROM ${meta}`),
    add: (name: string) =>
      query(
        "add",
        `INSERT INTO ${spaces} (name, version, pruned) SELECT $1, floor, floor FROM ${meta}
         ON CONFLICT (name) DO NOTHING`,
        Buffer.from(name),
      ),
    /** Of those keys; values only where they will be answered. */
    rows: (name: string, keys: readonly string[], answered: readonly string[]) =>
      query(
        "rows",
        `SELECT key, version, updated_at, expires_at,
           CASE WHEN value IS NULL OR key = ANY($3::bytea[]) THEN value ELSE '' END AS value
         FROM ${entries} WHERE namespace = ${idOf} AND key = ANY($2::bytea[])`,
        Buffer.from(name),
        keys.map((key) => Buffer.from(key)),
        answered.map((key) => Buffer.from(key)),
      ),
    put: ({ id }: NamespaceRow, rows: readonly Row[]) =>
      query(
        "put",
        `INSERT INTO ${entries} (namespace, key, version, updated_at, expires_at, value)
         SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[])
         ON CONFLICT (namespace, key) DO UPDATE SET version = excluded.version,
           updated_at = excluded.updated_at, expires_at = excluded.expires_at, value = excluded.value`,
        id,
        rows.map(({ key }) => Buffer.from(key)),
        rows.map(({ version }) => version),
        rows.map(({ updatedAtMs }) => updatedAtMs),
        rows.map(({ expiresAtMs }) => expiresAtMs ?? null),
        rows.map(({ json }) => json ?? null),
      ),
    setVersion: ({ id }: NamespaceRow, version: number) =>
      query("set_version", `UPDATE ${spaces} SET version = $2 WHERE id = $1`, id, version),
    /** The newest deletion that is one too many. */
    surplus: ({ id }: NamespaceRow, keep: number) =>
      query(
        "surplus",
        `SELECT version FROM ${entries} WHERE namespace = $1 AND value IS NULL
         ORDER BY version DESC LIMIT 1 OFFSET $2`,
        id,
        keep,
      ),
    setPruned: ({ id }: NamespaceRow, version: number) =>
      query(
        "set_pruned",
        `UPDATE ${spaces} SET pruned = greatest(pruned, $2::bigint) WHERE id = $1`,
        id,
        version,
      ),
    prune: ({ id }: NamespaceRow, version: number) =>
      query(
        "prune",
        `DELETE FROM ${entries} WHERE namespace = $1 AND key IN (
           SELECT key FROM ${entries} WHERE namespace = $1 AND value IS NULL AND version <= $2
           ORDER BY version LIMIT ${STEP}
         ) RETURNING 1`,
        id,
        version,
      ),

    // Each a transaction of its own.
    expired: () =>
      query(
        "expired",
        `SELECT name, key FROM ${entries} JOIN ${spaces} ON namespace = id
         WHERE expires_at <= ${NOW} AND value IS NOT NULL AND name IS NOT NULL ORDER BY expires_at LIMIT ${STEP}`,
      ),
    drop: (name: string) =>
      query(
        "drop",
        `WITH gone AS (UPDATE ${spaces} SET name = NULL WHERE name = $1 RETURNING version)
         UPDATE ${meta} SET floor = greatest(floor, gone.version + 1) FROM gone`,
        Buffer.from(name),
      ),
    /** Some rows of a namespace that was dropped; none of one where another daemon is at it. */
    clear: () =>
      query(
        "clear",
        `DELETE FROM ${entries} WHERE (namespace, key) IN (
           SELECT namespace, key FROM ${entries}
           WHERE namespace = (SELECT id FROM ${spaces} WHERE name IS NULL ORDER BY id LIMIT 1)
           ORDER BY key LIMIT ${STEP} FOR UPDATE SKIP LOCKED
         ) RETURNING 1`,
      ),
    removeEmpty: () =>
      query(
        "remove_empty",
        `DELETE FROM ${spaces} AS space WHERE name IS NULL
         AND NOT EXISTS (SELECT 1 FROM ${entries} WHERE namespace = space.id)`,
      ),
  };
}

export type Statements = ReturnType<typeof createStatements>;

export function namespaceRowOf({ id, version, pruned }: Columns): NamespaceRow {
  return { id: String(id), version: Number(version), pruned: Number(pruned) };
}

export function rowOf({ key, version, updated_at, expires_at, value }: Columns): Row {
  return {
    key: textOf(key),
    version: Number(version),
    updatedAtMs: Number(updated_at),
    ...(expires_at === null ? {} : { expiresAtMs: Number(expires_at) }),
    ...(value === null ? {} : { json: String(value) }),
  };
}

export function pageOf(rows: readonly Columns[]): ChangesPage {
  const [first] = rows;
  if (!first) return { changes: [] };
  const changes = rows.filter(({ key }) => key !== null);
  return {
    space: namespaceRowOf({ ...first, version: first["head"] }),
    changes: changes.map((it) => ({ row: rowOf(it), isTold: it["told"] === true })),
  };
}

export function textOf(bytes: unknown): string {
  return (bytes as Buffer).toString("utf8");
}
