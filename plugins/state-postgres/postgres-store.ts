import { type Clock, type StateStore, sleep } from "../../core/index.js";
import { encodeWrite, entryOf } from "../kit/state-plan.js";
import { createDatabase, type DatabaseOptions } from "./database.js";
import { createStatements, rowOf, textOf } from "./statements.js";
import { createUpkeep } from "./upkeep.js";
import { createWatches } from "./watches.js";
import { createWriteQueue, type WriteQueue } from "./write-queue.js";

export interface PostgresStoreOptions extends Omit<DatabaseOptions, "onHint" | "onChange"> {
  clock: Clock;
  /** How many deletions of each namespace are kept for watches that resume. */
  maxDeletions: number;
  /** What is wrong with the server itself, where the daemon runs it. */
  serverHealth?: () => string | undefined;
  /** Brings the server up, where the daemon runs it. */
  wanted?: () => void;
}

/** A state store in the tables of one schema of a PostgreSQL database. */
export function createPostgresStore(options: PostgresStoreOptions) {
  const { clock, maxDeletions, serverHealth, wanted } = options;
  const statements = createStatements(options.schema);
  const database = createDatabase({
    ...options,
    onHint: (name) => watches.wake(name),
    onChange: () => watches.wakeAll(),
  });
  const queue: WriteQueue = createWriteQueue(database, statements, (name, hasDeletions) => {
    watches.wake(name);
    database.hint(name);
    if (hasDeletions) upkeep.count(name);
  });
  const watches = createWatches(database, statements, queue, clock);
  const upkeep = createUpkeep({ database, statements, queue, watches, clock, maxDeletions });

  const store: StateStore = {
    name: "postgres",
    capabilities: { durable: true },
    async get(name, key) {
      const [found] = await database.query(statements.get(name, key));
      return found && entryOf(rowOf(found));
    },
    write: async (name, writes) => queue.write(name, writes.map(encodeWrite)),
    async list(name, query) {
      const found = await database.query(statements.list(name, query));
      return {
        entries: found.map((row) => entryOf(rowOf(row))),
        more: found.length < Number(found[0]?.["found"] ?? 0),
      };
    },
    watch: watches.changes,
    namespaces: async () => (await database.query(statements.names())).map(({ name }) => textOf(name)),
    async drop(name) {
      await queue.run(name, () => database.query(statements.drop(name)));
      watches.end(name);
      database.hint(name);
    },
    health() {
      const problem = database.problem();
      return problem === undefined ? undefined : (serverHealth?.() ?? problem);
    },
    ...(wanted ? { wanted } : {}),
  };
  return {
    store,
    /** Connects, and rejects when the tables there cannot be used. A server that is away is waited for. */
    async start() {
      upkeep.start();
      await database.open();
    },
    /** Waits a moment for what is under way, then ends all connections. Watches reject. */
    async stop() {
      upkeep.stop();
      await Promise.race([queue.idle(), sleep(clock, 2_000)]);
      // An attempt to connect ends by itself: a server that hangs does not hold up the stop.
      await Promise.race([database.close(), sleep(clock, 1_000)]);
    },
  };
}
