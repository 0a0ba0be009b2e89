import type { Redis } from "ioredis";
import { type Clock, OpenStarryError, type PluginContext, sleep } from "../../core/index.js";
import { createDiskRoom } from "../kit/redis/disk-room.js";
import { reaching } from "../kit/redis/failures.js";
import { inspectServer } from "../kit/redis/inspect.js";
import type { RedisChoice } from "../kit/redis/options.js";
import { createRedisServer } from "../kit/redis/redis-server.js";
import { type Calls, createCalls } from "./calls.js";

export interface SessionOptions extends RedisChoice {
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
}

export interface SessionEvents {
  onNotice: (notice: Buffer) => void;
  /** What was asked for is lost with the connection, and has to be asked for again. */
  onLost: (error: OpenStarryError) => void;
}

/** How often it is looked whether there is room on the disk. */
const LOOK_MS = 1_000;
/** So long the last words may take: a server that hangs does not hold up the daemon's stop. */
const GOODBYE_MS = 1_000;

/** The server, as far as it can be used: its commands, and what it tells. */
export function createSession(ctx: PluginContext, options: SessionOptions, events: SessionEvents) {
  const { managed, prefix, maxMessages, maxBytes, maxGroups } = options;
  const root = `${prefix}:bus`;
  const server = createRedisServer(ctx, options);
  const room =
    server.folder === undefined ? undefined : createDiskRoom(server.folder, ctx.clock, "bus_unavailable");
  let durable = options.durable ?? managed;
  let calls: Calls | undefined;
  let isStopped = false;
  let stopLooking = () => {};

  const health = () => (isStopped ? "it is stopped" : calls ? server.health() : "it is not started");

  function unavailable(): OpenStarryError {
    return new OpenStarryError("bus_unavailable", {
      detail: health() ?? `the connection to ${server.address()} was lost`,
      hint: "ask again in a moment; readers go on behind the last position that they have seen",
      data: { retry_after_s: 1 },
    });
  }

  function connect(): Calls {
    const onChange = () => {
      if (health() !== undefined) events.onLost(unavailable());
    };
    const { redis } = server.connect("bus", { prepare: look, onChange });
    // Of its own: a server gives up one that listens and is slow to take what it is told.
    const listener = server.connect("bus-listener", {
      prepare: async (it) => void (await it.subscribe(root)),
      onChange,
    });
    listener.redis.on("messageBuffer", (_channel, notice) => events.onNotice(notice));
    return createCalls({
      redis,
      root,
      maxMessages,
      maxBytes,
      maxGroups,
      checkRoom: (underWayBytes) => room?.check(underWayBytes),
      reaching: (act) => reaching("bus_unavailable", server.address(), act),
    });
  }

  /** What the server says of itself, after each connecting. */
  async function look(redis: Redis): Promise<void> {
    const { problem, syncsAlways } = await inspectServer(redis);
    server.note("server", problem);
    if (managed || options.durable !== undefined) return;
    durable = syncsAlways === true;
    ctx.log.info(
      { server: server.address(), syncs_every_write: syncsAlways ?? "not known" },
      durable ? "what is acknowledged is kept" : "what is acknowledged may be lost with the server",
    );
  }

  return {
    health,
    isDurable: () => durable,
    /** One that runs is not ours to bring up. */
    wanted: managed ? server.wanted : undefined,
    /** What can be asked now. Throws `bus_unavailable`. */
    use(): Calls {
      if (calls && health() === undefined) return calls;
      throw unavailable();
    },
    /** Rejects with `config_invalid` or `home_unusable`; not for a server that cannot be reached. */
    async start(): Promise<void> {
      if (calls) return;
      await server.start();
      calls = connect();
      stopLooking = every(ctx.clock, LOOK_MS, () => server.note("room", room?.problem()));
      await server.open();
    },
    /** `last` asks for what is to be done before the connections are closed. A server of our own runs on. */
    async stop(last: (calls: Calls) => void): Promise<void> {
      if (isStopped) return;
      const open = health() === undefined ? calls : undefined;
      isStopped = true;
      stopLooking();
      events.onLost(unavailable());
      if (open) last(open);
      if (open) await Promise.race([open.flush(), sleep(ctx.clock, GOODBYE_MS)]);
      server.stop();
    },
  };
}

/** Again and again, until the returned function is called. */
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
