import type pg from "pg";
import { isOpenStarryError } from "../../core/index.js";
import { isAnswer } from "./failures.js";

export type Row = Record<string, unknown>;

/** One statement. With a name it is prepared once for each connection. */
export type Query = pg.QueryConfig;

export interface Transaction {
  /** All in one round trip; answers the rows of each. */
  send(...queries: Query[]): Promise<Row[][]>;
  /** The same, and commits. */
  commit(...queries: Query[]): Promise<void>;
}

/** One transaction on a connection, which goes back to its pool, or is ended where its state is not known. */
export async function once<T>(
  client: pg.PoolClient,
  act: (transaction: Transaction) => Promise<T>,
): Promise<T> {
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
