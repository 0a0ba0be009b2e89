import type { Duplex } from "node:stream";
import pg from "pg";
import { type Clock, isOpenStarryError, OpenStarryError } from "../../core/index.js";
import { isAnswer, isCollision, unavailable, wordsFor } from "./failures.js";
import { createListener, type Listener } from "./listener.js";
import { prepareSchema } from "./schema.js";

export type Row = Record<string, unknown>;

/** One statement. With a name it is prepared once for each connection. */
export type Query = pg.QueryConfig;

export interface Transaction {
  /** All in one round trip; answers the rows of each. */
  send(...queries: Query[]): Promise<Row[][]>;
  /** The same, and commits. */
  commit(...queries: Query[]): Promise<void>;
}

/** The server, as it can be reached now. Whatever goes wrong with it is `state_unavailable`, in own words. */
export interface Database {
  /** Connects, and does so again whenever the connection is lost. Resolves after the first attempt. */
  open(): Promise<void>;
  close(): Promise<void>;
  /** Why it cannot be used now, in words. */
  problem(): string | undefined;
  query(query: Query): Promise<Row[]>;
  /**
   * `act` in a transaction, which is rolled back unless it commits. `act` is called again when another transaction was
   * in the way.
   */
  transaction<T>(act: (transaction: Transaction) => Promise<T>): Promise<T>;
  /** Tells other daemons that these have changed, some time soon, or not: a hint. */
  hint(name: string): void;
}

export interface DatabaseOptions {
  /** How it is reached; or what says so, when it is. */
  connection: pg.ClientConfig | (() => pg.ClientConfig);
  /** The same for people: no secrets. */
  place: string;
  schema: string;
  clock: Pick<Clock, "after" | "monotonic">;
  /** So long it is no fault that the server is not there yet. */
  patienceMs: number;
  /** Another daemon has changed this namespace. */
  onHint: (name: string) => void;
  /** It can be used, or not any more. */
  onChange: () => void;
  /** Told once when it cannot be used, and with `undefined` once it can again. */
  onProblem: (problem: string | undefined) => void;
}

const POOL_SIZE = 4;
/** Those who share one for reading. */
const MAX_SHARED = 32;
/** Those who wait for a connection. */
const MAX_WAITING = 1_000;
const CONNECT_MS = 5_000;
const STATEMENT_MS = 10_000;
/** Longer, so that the server's own answer comes first. */
const ANSWER_MS = 12_000;
const MAX_COLLISIONS = 5;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 1_000;

/**
 * An index serves every statement, in the order that is asked for, however large the tables are. The server would see
 * that too, but for tables that have grown since it looked at them last. What it finds costly it would compile.
 */
const PLANNING =
  "('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('jit', 'off')";

/** A connection on which several read at a time: their queries are on their way one behind the other. */
interface Shared {
  readonly client: Promise<pg.PoolClient>;
  users: number;
  isBroken: boolean;
}

interface Open {
  readonly pool: Pool;
  readonly listener: Listener;
}

export function createDatabase(options: DatabaseOptions): Database {
  const { clock, place, schema, onProblem, onChange } = options;
  let open: Open | undefined;
  let problem: string | undefined = "it is not connected";
  /** Absent while it is closed. */
  let openedAt: number | undefined;
  let told = false;
  let attempt: Promise<void> | undefined;
  let reading: Shared | undefined;
  let retryMs = FIRST_RETRY_MS;
  let cancelRetry = () => {};

  function down(words: string, wasUp: boolean): void {
    problem = words;
    if (openedAt === undefined) return;
    if (!told && (wasUp || clock.monotonic() - openedAt >= options.patienceMs)) {
      told = true;
      onProblem(problem);
    }
    cancelRetry();
    cancelRetry = clock.after(retryMs, () => void connect());
    retryMs = Math.min(retryMs * 2, LAST_RETRY_MS);
  }

  function lost(which: Open, error: unknown): void {
    if (open !== which) return;
    open = undefined;
    void which.pool.abandon();
    down(`the connection to ${place} is lost: ${wordsFor(error)}`, true);
    onChange();
  }

  /** Rejects with what will not mend itself: tables that this daemon cannot use. */
  async function tryConnect(): Promise<void> {
    cancelRetry();
    let listener: Listener | undefined;
    try {
      const config = clientConfig(options);
      listener = createListener({ ...config, connectionTimeoutMillis: CONNECT_MS }, options);
      await listener.connect((client) => prepareSchema(client, schema));
    } catch (error) {
      listener?.end();
      const refusal = isOpenStarryError(error) ? error : undefined;
      down(refusal ? refusal.message : `${place} cannot be used: ${wordsFor(error)}`, false);
      if (refusal) throw refusal;
      return;
    }
    const pool = createPool(options);
    if (openedAt === undefined) {
      listener.end();
      await pool.abandon();
      return;
    }
    const now: Open = { pool, listener };
    open = now;
    problem = undefined;
    retryMs = FIRST_RETRY_MS;
    listener.onLost((error) => lost(now, error));
    if (told) onProblem(undefined);
    told = false;
    onChange();
  }

  function connect(): Promise<void> {
    attempt ??= tryConnect().finally(() => {
      attempt = undefined;
    });
    // Whoever opens it hears of it too.
    attempt.catch(() => {});
    return attempt;
  }

  async function connected(): Promise<pg.PoolClient> {
    if (!open) throw away(`the state store cannot be used now: ${problem}`);
    if (open.pool.waitingCount >= MAX_WAITING)
      throw away(`${MAX_WAITING} requests wait for ${place} already`);
    return open.pool.connect().catch((error) => {
      throw unavailable(`${place} cannot be used`, error);
    });
  }

  /** The connection that the next reader shares with others. */
  function share(): Shared {
    if (!reading || reading.isBroken || reading.users >= MAX_SHARED)
      reading = { client: connected(), users: 0, isBroken: false };
    return reading;
  }

  function giveBack(shared: Shared): void {
    if (shared.users > 0) return;
    if (reading === shared) reading = undefined;
    shared.client.then(
      (client) => client.release(shared.isBroken),
      // There was none.
      () => {},
    );
  }

  return {
    async open() {
      if (open) return;
      openedAt ??= clock.monotonic();
      await connect();
    },
    async close() {
      openedAt = undefined;
      cancelRetry();
      const closing = open;
      open = undefined;
      problem = "it is not connected";
      onChange();
      await attempt?.catch(() => {});
      closing?.listener.end();
      await closing?.pool.abandon();
    },
    problem: () => problem,
    async query(query) {
      const shared = share();
      shared.users++;
      try {
        return (await (await shared.client).query(query)).rows;
      } catch (error) {
        if (!isAnswer(error)) shared.isBroken = true;
        throw unavailable(`${place} could not be asked`, error);
      } finally {
        shared.users--;
        giveBack(shared);
      }
    },
    async transaction(act) {
      for (let tries = 1; ; tries++) {
        const client = await connected();
        try {
          return await once(client, act);
        } catch (error) {
          if (isCollision(error) && tries < MAX_COLLISIONS) continue;
          throw unavailable(`${place} could not be written`, error);
        }
      }
    },
    hint: (name) => open?.listener.hint(name),
  };
}

/** One transaction on a connection, which goes back to its pool, or is ended where its state is not known. */
async function once<T>(client: pg.PoolClient, act: (transaction: Transaction) => Promise<T>): Promise<T> {
  let isBegun = false;
  let isOver = false;
  const send = (...queries: Query[]): Promise<pg.QueryResult[]> => {
    const begin = isBegun ? [] : [{ text: "BEGIN ISOLATION LEVEL READ COMMITTED" }];
    isBegun = true;
    return all([...begin, ...queries].map((query) => client.query(query))).then((results) =>
      results.slice(begin.length),
    );
  };
  try {
    const result = await act({
      send: async (...queries) => (await send(...queries)).map(({ rows }) => rows),
      async commit(...queries) {
        await send(...queries, { text: "COMMIT" });
        isOver = true;
      },
    });
    if (isBegun && !isOver) await client.query("ROLLBACK");
    client.release();
    return result;
  } catch (error) {
    if (isOpenStarryError(error) || isAnswer(error)) {
      await client.query("ROLLBACK").then(
        () => client.release(),
        () => client.release(true),
      );
    } else client.release(true);
    throw error;
  }
}

/** As `Promise.all`, and rejects only when all have settled. */
async function all<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(promises);
  const failed = settled.find(({ status }) => status === "rejected");
  if (failed) throw (failed as PromiseRejectedResult).reason;
  return settled.map((it) => (it as PromiseFulfilledResult<T>).value);
}

interface Pool extends pg.Pool {
  /** Ends all connections at once, whatever is under way on them. */
  abandon(): Promise<void>;
}

function createPool(options: DatabaseOptions): Pool {
  const pool = new pg.Pool({
    ...clientConfig(options),
    max: POOL_SIZE,
    connectionTimeoutMillis: CONNECT_MS,
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

function clientConfig({ connection }: DatabaseOptions): pg.ClientConfig {
  return {
    ...(typeof connection === "function" ? connection() : connection),
    application_name: "openstarry-daemon",
    pipeline: true,
    keepAlive: true,
    statement_timeout: STATEMENT_MS,
    query_timeout: ANSWER_MS,
    idle_in_transaction_session_timeout: STATEMENT_MS,
  };
}

function away(detail: string): OpenStarryError {
  return new OpenStarryError("state_unavailable", {
    detail,
    hint: "ask again in a moment",
    data: { retry_after_s: 1 },
  });
}
