import { OpenStarryError, type PluginContext, type StateStore } from "../../core/index.js";
import { createDiskSpace } from "../kit/redis/disk-space.js";
import { translateErrors } from "../kit/redis/failures.js";
import type { RedisServerOptions } from "../kit/redis/options.js";
import { createRedisServer } from "../kit/redis/redis-server.js";
import { createServerInspection } from "../kit/redis/server-inspection.js";
import { type Commands, type CommandsOptions, createCommands } from "./commands.js";
import { createWatches } from "./watches.js";

export interface RedisStoreOptions extends RedisServerOptions, CommandsOptions {}

/** The pause between two searches for expired entries, and a shorter one while there are more. */
const EXPIRY_CHECK_MS = 1_000;
const NEXT_BATCH_MS = 20;

/** Creates the state store on a Redis server. */
export function createRedisStore(ctx: PluginContext, options: RedisStoreOptions) {
  const { clock, log } = ctx;
  const server = createRedisServer(ctx, options);
  const inspection = createServerInspection(log, options, server);
  const diskSpace =
    server.folder === undefined ? undefined : createDiskSpace(server.folder, clock, "state_unavailable");
  const watches = createWatches((act) => use(act), clock);
  let commands: Commands | undefined;
  let cancelExpiry = () => {};

  const unavailable = () =>
    new OpenStarryError("state_unavailable", {
      detail: server.health() ?? `lost the connection to ${server.address()}`,
      hint: "try again in a moment",
      data: { retry_after_s: 1 },
    });
  /** Calls `act` at once, so that commands are sent in the order of the calls. */
  async function use<T>(act: (commands: Commands) => Promise<T>): Promise<T> {
    const open = commands;
    if (!open || server.health() !== undefined) throw unavailable();
    return translateErrors("state_unavailable", server.address(), () => act(open));
  }
  function write<T>(act: (commands: Commands) => Promise<T>): Promise<T> {
    return use((it) => {
      diskSpace?.assertEnough();
      return act(it);
    });
  }

  async function deleteExpired(): Promise<void> {
    let more = false;
    server.setProblem("disk", diskSpace?.problem());
    if (server.health() === undefined) {
      // The next round tries again, and a lost connection is reported by itself.
      more = await write((it) => it.deleteExpired()).catch(() => false);
    }
    if (commands)
      cancelExpiry = clock.after(more ? NEXT_BATCH_MS : EXPIRY_CHECK_MS, () => void deleteExpired());
  }

  function open(): Commands {
    const onChange = () => {
      if (server.health() !== undefined) watches.failAll(unavailable());
    };
    const { redis } = server.connect("state", { prepare: inspection.inspect, onChange });
    const created = createCommands(redis, options);
    // A connection of its own, since the server disconnects a subscriber that is slow to read.
    const listener = server.connect("state-notices", {
      prepare: async (it) => void (await it.subscribe(created.channel)),
      onChange,
    });
    listener.redis.on("message", (_channel, text) => watches.onNotification(text));
    return created;
  }

  const store: StateStore = {
    name: "redis",
    capabilities: {
      get durable() {
        return inspection.isDurable();
      },
    },
    get: (name, key) => use((it) => it.get(name, key)),
    write: (name, writes) => write((it) => it.write(name, writes)),
    list: (name, query) => use((it) => it.list(name, query)),
    watch: watches.watch,
    namespaces: () => use((it) => it.names()),
    drop: (name) => write((it) => it.drop(name)),
    health: server.health,
    // The daemon cannot start an external server.
    wanted: options.managed ? server.requestStart : undefined,
  };

  return {
    store,
    /** Rejects with `config_invalid` or `home_unusable`, but not when the server cannot be reached. */
    async start() {
      if (commands) return;
      await server.start();
      commands = open();
      await server.open();
      await deleteExpired();
    },
    /** Ends all watches with an error. A managed server keeps running. */
    stop() {
      commands = undefined;
      cancelExpiry();
      server.stop();
      watches.failAll(unavailable());
    },
  };
}
