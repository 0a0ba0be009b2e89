import { type Clock, OpenStarryError, type PluginContext, sleep } from "../../core/index.js";
import { createDiskSpace } from "../kit/redis/disk-space.js";
import { translateErrors } from "../kit/redis/failures.js";
import type { RedisServerOptions } from "../kit/redis/options.js";
import { createRedisServer } from "../kit/redis/redis-server.js";
import { createServerInspection } from "../kit/redis/server-inspection.js";
import { type Commands, createCommands } from "./commands.js";

export interface SessionOptions extends RedisServerOptions {
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
}

export interface SessionEvents {
  onNotification: (notification: Buffer) => void;
  /** Called when the connection is lost: readers and members must start again. */
  onLost: (error: OpenStarryError) => void;
}

const DISK_CHECK_MS = 1_000;
/** How long stopping waits for the last commands: a server that hangs must not delay the daemon's stop. */
const FLUSH_TIMEOUT_MS = 1_000;

/** Creates the connections of the bus to its server: one for commands, and one for notifications. */
export function createSession(ctx: PluginContext, options: SessionOptions, events: SessionEvents) {
  const { managed, prefix, maxMessages, maxBytes, maxGroups } = options;
  const root = `${prefix}:bus`;
  const server = createRedisServer(ctx, options);
  const inspection = createServerInspection(ctx.log, options, server);
  const diskSpace =
    server.folder === undefined ? undefined : createDiskSpace(server.folder, ctx.clock, "bus_unavailable");
  let commands: Commands | undefined;
  let isStopped = false;
  let stopChecking = () => {};

  const health = () => (isStopped ? "the bus is stopped" : commands ? server.health() : "not started yet");

  function unavailable(): OpenStarryError {
    return new OpenStarryError("bus_unavailable", {
      detail: health() ?? `lost the connection to ${server.address()}`,
      hint: "try again in a moment; readers resume after the last position that they have seen",
      data: { retry_after_s: 1 },
    });
  }

  function connect(): Commands {
    const onChange = () => {
      if (health() !== undefined) events.onLost(unavailable());
    };
    const { redis } = server.connect("bus", { prepare: inspection.inspect, onChange });
    // A connection of its own, since the server disconnects a subscriber that is slow to read.
    const listener = server.connect("bus-listener", {
      prepare: async (it) => void (await it.subscribe(root)),
      onChange,
    });
    listener.redis.on("messageBuffer", (_channel, notification) => events.onNotification(notification));
    return createCommands({
      redis,
      root,
      maxMessages,
      maxBytes,
      maxGroups,
      assertWritable: (bytesInFlight) => diskSpace?.assertEnough(bytesInFlight),
      translateErrors: (act) => translateErrors("bus_unavailable", server.address(), act),
    });
  }

  return {
    health,
    isDurable: inspection.isDurable,
    /** Starts a managed server; `undefined` for an external one, which the daemon cannot start. */
    requestStart: managed ? server.requestStart : undefined,
    /** Returns the commands. Throws `bus_unavailable` while the server cannot be used. */
    commands(): Commands {
      if (commands && health() === undefined) return commands;
      throw unavailable();
    },
    /** Rejects with `config_invalid` or `home_unusable`, but not when the server cannot be reached. */
    async start(): Promise<void> {
      if (commands) return;
      await server.start();
      commands = connect();
      stopChecking = every(ctx.clock, DISK_CHECK_MS, () => server.setProblem("disk", diskSpace?.problem()));
      await server.open();
    },
    /** Closes the connections when the commands that `beforeClose` sends were answered. */
    async stop(beforeClose: (commands: Commands) => void): Promise<void> {
      if (isStopped) return;
      const usable = health() === undefined ? commands : undefined;
      isStopped = true;
      stopChecking();
      events.onLost(unavailable());
      if (usable) beforeClose(usable);
      if (usable) await Promise.race([usable.flush(), sleep(ctx.clock, FLUSH_TIMEOUT_MS)]);
      server.stop();
    },
  };
}

/** Calls `act` periodically, until the returned function is called. */
export function every(clock: Pick<Clock, "after">, ms: number, act: () => void): () => void {
  let cancel = () => {};
  const wait = () => {
    cancel = clock.after(ms, () => {
      act();
      wait();
    });
  };
  wait();
  return () => cancel();
}
