import type { Duplex } from "node:stream";
import pg from "pg";

const POOL_SIZE = 4;
const CONNECT_MS = 5_000;
const STATEMENT_MS = 10_000;
/** Longer, so that the server's own answer comes first. */
const ANSWER_MS = 12_000;

/**
 * An index serves every statement, in the order that is asked for, however large the tables are. The server would see
 * that too, but for tables that have grown since it looked at them last. What it finds costly it would compile.
 */
const PLANNING =
  "('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('jit', 'off')";

export interface PoolOptions {
  /** How the server is reached; or what says so, when it is. */
  connection: pg.ClientConfig | (() => pg.ClientConfig);
}

export interface Pool extends pg.Pool {
  /** Ends all connections at once, whatever is under way on them. */
  abandon(): Promise<void>;
}

export function createPool(options: PoolOptions): Pool {
  const pool = new pg.Pool({
    ...clientConfig(options),
    max: POOL_SIZE,
    idleTimeoutMillis: 60_000,
    allowExitOnIdle: true,
    onConnect: async (client) => {
      // What was acknowledged is on the disk, whatever the server's default; more than that is left as it is.
      await client.query(
        `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
         UNION ALL SELECT set_config(name, value, false) FROM (VALUES ${PLANNING}) AS planning (name, value)`,
      );
    },
  });
  const clients = new Set<pg.PoolClient>();
  pool.on("connect", (client) => {
    clients.add(client);
    // Its queries reject; that the server is gone, the listener tells.
    client.on("error", () => {});
  });
  pool.on("remove", (client) => clients.delete(client));
  pool.on("error", () => {});
  return Object.assign(pool, {
    async abandon() {
      const ended = pool.end();
      // Saying goodbye waits for an answer.
      for (const client of clients) streamOf(client).destroy();
      await ended;
    },
  });
}

function streamOf(client: pg.ClientBase): Duplex {
  return (client as unknown as { connection: { stream: Duplex } }).connection.stream;
}

/** How each connection of this plugin is made. */
export function clientConfig({ connection }: PoolOptions): pg.ClientConfig {
  return {
    ...(typeof connection === "function" ? connection() : connection),
    application_name: "openstarry-daemon",
    connectionTimeoutMillis: CONNECT_MS,
    pipeline: true,
    keepAlive: true,
    statement_timeout: STATEMENT_MS,
    query_timeout: ANSWER_MS,
    idle_in_transaction_session_timeout: STATEMENT_MS,
  };
}
