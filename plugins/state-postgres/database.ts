import type pg from "pg";
import { type Clock, isOpenStarryError, OpenStarryError } from "../../core/index.js";
import { isAnswer, isCollision, unavailable, wordsFor } from "./failures.js";
import { createListener, type Listener } from "./listener.js";
import { clientConfig, createPool, type Pool, type PoolOptions } from "./pool.js";
import { prepareSchema } from "./schema.js";
import { once, type Query, type Row, type Transaction } from "./transaction.js";

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

export interface DatabaseOptions extends PoolOptions {
  /** How it is reached, for people: no secrets. */
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

/** Those who share one for reading. */
const MAX_SHARED = 32;
/** Those who wait for a connection. */
const MAX_WAITING = 1_000;
const MAX_COLLISIONS = 5;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 1_000;

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
      listener = createListener(config, options);
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

function away(detail: string): OpenStarryError {
  return new OpenStarryError("state_unavailable", {
    detail,
    hint: "ask again in a moment",
    data: { retry_after_s: 1 },
  });
}
