import { definePlugin, type PluginContext, sleep, stateStore } from "../../core/index.js";
import { createManagedServer } from "../kit/managed-server.js";
import { createCluster } from "./cluster.js";
import { type Options, optionsSchema } from "./options.js";
import { createPostgresStore, type PostgresStoreOptions } from "./postgres-store.js";
import { parseUrl, readPassword } from "./server-url.js";

const SERVICE = "state-postgres";
/** A server that makes its data folder, or puts it in order after a crash, is no fault. */
const START_MS = 15_000;
/** So long the daemon's start waits for a server that is likely to be there. */
const FIRST_ATTEMPT_MS = 2_000;

/** The agents' state in PostgreSQL: a server that runs, or one of the daemon's own. */
export default definePlugin({
  name: "state-postgres",
  apiVersion: 1,
  provides: [stateStore],
  options: optionsSchema,
  setup(ctx, options) {
    const { store, start, stop } = options.managed ? managed(ctx, options) : remote(ctx, options);
    ctx.provide(stateStore, store);
    return { start, stop };
  },
});

function commonOptions(ctx: PluginContext, { schema, max_deletions }: Options) {
  return {
    schema,
    clock: ctx.clock,
    maxDeletions: max_deletions,
    onProblem(problem: string | undefined) {
      if (problem === undefined) ctx.daemon.recovered();
      // A server of the daemon's own ends before this plugin does.
      else if (ctx.daemon.status().state !== "stopping") ctx.daemon.degraded(problem);
    },
  } satisfies Partial<PostgresStoreOptions>;
}

function remote(ctx: PluginContext, options: Options) {
  const { url = "", password_file } = options;
  const server = parseUrl(url);
  if (typeof server === "string") throw new Error(server);
  const password = password_file === undefined ? {} : { password: () => readPassword(password_file) };
  const made = createPostgresStore({
    ...commonOptions(ctx, options),
    connection: { ...server.connection, ...password },
    place: `PostgreSQL at ${server.place}`,
    patienceMs: 0,
  });
  return {
    ...made,
    async start() {
      if (password_file !== undefined) readPassword(password_file);
      await Promise.race([made.start(), sleep(ctx.clock, FIRST_ATTEMPT_MS)]);
    },
  };
}

function managed(ctx: PluginContext, options: Options) {
  const { eager, program, bin_dir } = options;
  const cluster = createCluster({ dataDir: ctx.dataDir, program, binDir: bin_dir });
  const server = createManagedServer(ctx, { name: SERVICE, eager, template: cluster.template });
  const made = createPostgresStore({
    ...commonOptions(ctx, options),
    connection: cluster.connection,
    place: `PostgreSQL (svc:${SERVICE})`,
    patienceMs: START_MS,
    serverHealth: server.health,
    wanted() {
      server.wanted();
      connect();
    },
  });
  const connect = () => {
    made.start().catch((err) => ctx.log.error({ err }, "the tables cannot be used"));
  };
  return {
    ...made,
    async start() {
      await server.start();
      // What is not wanted yet is not missed.
      if (ctx.services.get(SERVICE)) connect();
    },
  };
}
