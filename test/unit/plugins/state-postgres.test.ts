import { afterAll, beforeAll, describe, test } from "vitest";
import { systemClock } from "../../../core/index.js";
import {
  createPostgresStore,
  type PostgresStoreOptions,
} from "../../../plugins/state-postgres/postgres-store.js";
import { parseUrl } from "../../../plugins/state-postgres/server-url.js";
import { testStateStore } from "../../contract/index.js";
import { noPostgres, startPostgres, type TestPostgres } from "../../helpers/postgres.js";

let server: TestPostgres;
let schemas = 0;

function subject(schema = `s${++schemas}`, options: Partial<PostgresStoreOptions> = {}) {
  const parsed = parseUrl(server.url);
  if (typeof parsed === "string") throw new Error(parsed);
  const made = createPostgresStore({
    ...parsed,
    schema,
    clock: systemClock,
    maxDeletions: 1_000,
    patienceMs: 0,
    onProblem: () => {},
    ...options,
  });
  return { ...made, schema, reopen: () => subject(schema, options) };
}

describe.skipIf(noPostgres !== undefined)("with a server", () => {
  beforeAll(async () => {
    server = await startPostgres();
  }, 60_000);
  afterAll(() => server?.stop());

  testStateStore({ test, factory: () => subject(), capabilities: { durable: true } });
});
