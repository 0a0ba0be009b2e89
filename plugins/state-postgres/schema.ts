import type { ClientBase } from "pg";
import { OpenStarryError } from "../../core/index.js";

export const SCHEMA_VERSION = 1;
/** Tells these tables from any others of their names. */
const KIND = "openstarry state";
/** With the schema's name: who holds this lock makes the tables. */
const LOCK_CLASS = 0x4f53_5331;

/** By version: what makes the next one out of it. 0 is nothing at all. `S.` stands for the schema. */
const STEPS: readonly string[] = [
  // Names and keys are bytes: any character, in the order of the contract. A deleted key keeps its row, with no value,
  // until the namespace has too many of those; `pruned` is the newest deletion that is not known any more. A namespace
  // that was dropped has lost its name, and its rows go bit by bit. `floor` lies above the versions of all that were
  // dropped: a later one of the same name gives no version a second time. Values are JSON as it was put: `jsonb` would
  // round numbers and refuse U+0000.
  `
  CREATE TABLE S.state_meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    kind text NOT NULL, schema_version integer NOT NULL, floor bigint NOT NULL
  );
  INSERT INTO S.state_meta (kind, schema_version, floor) VALUES ('${KIND}', 0, 0);
  CREATE TABLE S.state_namespaces (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name bytea UNIQUE,
    version bigint NOT NULL, pruned bigint NOT NULL
  ) WITH (fillfactor = 50);
  CREATE TABLE S.state_entries (
    namespace bigint NOT NULL, key bytea NOT NULL, version bigint NOT NULL,
    updated_at bigint NOT NULL, expires_at bigint, value text,
    PRIMARY KEY (namespace, key)
  );
  CREATE UNIQUE INDEX state_entries_by_version ON S.state_entries (namespace, version);
  CREATE INDEX state_entries_by_end ON S.state_entries (expires_at) WHERE expires_at IS NOT NULL;
  CREATE INDEX state_deletions ON S.state_entries (namespace, version) WHERE value IS NULL;
  `,
];

/**
 * Makes the tables in a schema of their own, or brings older ones up to date; several daemons that do so at once
 * wait for each other. Throws `config_invalid` for tables of a newer daemon, of something else, or in a database that
 * cannot hold every text; nothing is changed then.
 */
export async function prepareSchema(client: ClientBase, schema: string): Promise<void> {
  if ((await versionOf(client, schema)) === SCHEMA_VERSION) return;
  await client.query("BEGIN ISOLATION LEVEL READ COMMITTED");
  try {
    await client.query("SELECT pg_advisory_xact_lock($1, hashtext($2))", [LOCK_CLASS, schema]);
    const version = await versionOf(client, schema);
    await assertEncoding(client);
    const quoted = `"${schema}"`;
    // Asked first: who may use a schema may not always make one.
    if (!(await exists(client, "pg_namespace WHERE nspname = $1", schema)))
      await client.query(`CREATE SCHEMA ${quoted}`);
    for (const step of STEPS.slice(version)) await client.query(step.replaceAll("S.", `${quoted}.`));
    await client.query(`UPDATE ${quoted}.state_meta SET schema_version = $1`, [SCHEMA_VERSION]);
    await client.query("COMMIT");
  } catch (error) {
    // It is the server's to end it where the connection is gone.
    await client.query("ROLLBACK").catch(() => {});
    throw error;
  }
}

/** 0: there are no tables yet. */
async function versionOf(client: ClientBase, schema: string): Promise<number> {
  const tables = "pg_tables WHERE schemaname = $1 AND tablename LIKE 'state\\_%'";
  if (!(await exists(client, `${tables} AND tablename = 'state_meta'`, schema))) {
    if (!(await exists(client, tables, schema))) return 0;
    throw refused(schema, "holds tables of something else");
  }
  const { rows } = await client
    .query(`SELECT kind, schema_version FROM "${schema}".state_meta`)
    .catch((error: { code?: string }) => {
      // A table of that name without these columns.
      if (error.code !== "42703") throw error;
      return { rows: [] };
    });
  const [found] = rows;
  if (found?.kind !== KIND) throw refused(schema, "holds tables of something else");
  if (found.schema_version <= SCHEMA_VERSION) return found.schema_version;
  throw refused(
    schema,
    `has tables of version ${found.schema_version}; this daemon knows versions up to ${SCHEMA_VERSION}`,
    "run the newer daemon",
  );
}

async function exists(client: ClientBase, what: string, name: string): Promise<boolean> {
  const { rowCount } = await client.query(`SELECT 1 FROM ${what} LIMIT 1`, [name]);
  return rowCount === 1;
}

async function assertEncoding(client: ClientBase): Promise<void> {
  const { rows } = await client.query("SELECT current_setting('server_encoding') AS encoding");
  const encoding = String(rows[0]?.encoding);
  if (["UTF8", "SQL_ASCII"].includes(encoding)) return;
  throw new OpenStarryError("config_invalid", {
    detail: `state-postgres: the database has the encoding ${encoding}, which cannot hold every text`,
    hint: "name another database in url, made with: createdb --encoding=UTF8 --template=template0 NAME",
  });
}

function refused(schema: string, what: string, first?: string): OpenStarryError {
  return new OpenStarryError("config_invalid", {
    detail: `state-postgres: the schema "${schema}" of the database ${what}; it was left as it is`,
    hint: `${first === undefined ? "" : `${first}, or `}name another schema in the option "schema"`,
  });
}
