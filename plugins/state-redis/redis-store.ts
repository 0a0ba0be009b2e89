import type { Redis } from "ioredis";
import { OpenStarryError, type PluginContext, type StateStore } from "../../core/index.js";
import { createDiskRoom } from "../kit/redis/disk-room.js";
import { reaching } from "../kit/redis/failures.js";
import { inspectServer } from "../kit/redis/inspect.js";
import type { RedisChoice } from "../kit/redis/options.js";
import { createRedisServer } from "../kit/redis/redis-server.js";
import { createTables, type Tables, type TablesOptions } from "./tables.js";
import { createWatches } from "./watches.js";

export interface RedisStoreOptions extends RedisChoice, TablesOptions {}

/** How often it is looked for entries whose time is over, and how soon again while there is more to do. */
const CLEAR_UP_MS = 1_000;
const GO_ON_MS = 20;

/** A state store on a Redis server. */
export function createRedisStore(ctx: PluginContext, options: RedisStoreOptions) {
  const { clock, log } = ctx;
  const server = createRedisServer(ctx, options);
  const room =
    server.folder === undefined ? undefined : createDiskRoom(server.folder, clock, "state_unavailable");
  const watches = createWatches((act) => use(act), clock);
  let durable = options.durable ?? options.managed;
  let tables: Tables | undefined;
  let cancelClearUp = () => {};

  const unavailable = () =>
    new OpenStarryError("state_unavailable", {
      detail: server.health() ?? `the connection to ${server.address()} was lost`,
      hint: "ask again in a moment",
      data: { retry_after_s: 1 },
    });
  /** Calls `act` at once, so that what is sent is sent in the order of the calls. */
  async function use<T>(act: (tables: Tables) => Promise<T>): Promise<T> {
    const open = tables;
    if (!open || server.health() !== undefined) throw unavailable();
    return reaching("state_unavailable", server.address(), () => act(open));
  }
  function write<T>(act: (tables: Tables) => Promise<T>): Promise<T> {
    return use((it) => {
      room?.check();
      return act(it);
    });
  }

  /** What the server says of itself, after each connecting. */
  async function look(redis: Redis): Promise<void> {
    const { problem, syncsAlways } = await inspectServer(redis);
    server.note("server", problem);
    if (options.managed || options.durable !== undefined) return;
    durable = syncsAlways === true;
    const fields = { server: server.address(), syncs_every_write: syncsAlways ?? "not known" };
    log.info(
      fields,
      durable ? "what is acknowledged is kept" : "what is acknowledged may be lost with the server",
    );
  }

  async function clearUp(): Promise<void> {
    let more = false;
    server.note("room", room?.problem());
    if (server.health() === undefined) {
      // The next round tries again; a connection that is lost is told by itself.
      more = await write((it) => it.clearUp()).catch(() => false);
    }
    if (tables) cancelClearUp = clock.after(more ? GO_ON_MS : CLEAR_UP_MS, () => void clearUp());
  }

  function open(): Tables {
    const lost = () => {
      if (server.health() !== undefined) watches.failAll(unavailable());
    };
    const commands = server.connect("state", { prepare: look, onChange: lost });
    const tables = createTables(commands.redis, options);
    // Of its own: a server gives up one that listens and is slow to take large answers.
    const notices = server.connect("state-notices", {
      prepare: async (redis) => void (await redis.subscribe(tables.channel)),
      onChange: lost,
    });
    notices.redis.on("message", (_channel, text) => watches.notice(text));
    return tables;
  }

  const store: StateStore = {
    name: "redis",
    capabilities: {
      get durable() {
        return durable;
      },
    },
    get: (name, key) => use((it) => it.get(name, key)),
    write: (name, writes) => write((it) => it.write(name, writes)),
    list: (name, query) => use((it) => it.list(name, query)),
    watch: watches.changes,
    namespaces: () => use((it) => it.names()),
    drop: (name) => write((it) => it.drop(name)),
    health: server.health,
    // One that runs is not ours to bring up.
    ...(options.managed ? { wanted: server.wanted } : {}),
  };

  return {
    store,
    /** Rejects with `config_invalid` or `home_unusable`; not for a server that cannot be reached. */
    async start() {
      if (tables) return;
      await server.start();
      tables = open();
      await server.open();
      await clearUp();
    },
    /** Watches reject. A server of our own runs on. */
    stop() {
      tables = undefined;
      cancelClearUp();
      server.stop();
      watches.failAll(unavailable());
    },
  };
}
