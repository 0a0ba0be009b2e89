import type { Redis } from "ioredis";
import type { Logger } from "../../../core/index.js";
import type { RedisServerOptions } from "./options.js";
import type { RedisServer } from "./redis-server.js";

/** What a server says about itself. */
export interface ServerFacts {
  /** Whether it syncs every write to its disk before it answers; `undefined` when it does not say. */
  syncsEveryWrite?: boolean | undefined;
  /** Why the server cannot be used, or may lose data. */
  problem?: string | undefined;
}

const OLDEST_VERSION = 7;

/** Creates the inspection of a server's configuration, and of whether it keeps what it has acknowledged. */
export function createServerInspection(log: Logger, options: RedisServerOptions, server: RedisServer) {
  let durable = options.durable ?? options.managed;
  return {
    isDurable: () => durable,
    /** Inspects the server on each new connection, and reports a problem of its configuration. */
    async inspect(redis: Redis): Promise<void> {
      const { problem, syncsEveryWrite } = await readFacts(redis);
      server.setProblem("server", problem);
      if (options.managed || options.durable !== undefined) return;
      durable = syncsEveryWrite === true;
      log.info(
        { server: server.address(), syncs_every_write: syncsEveryWrite ?? "unknown" },
        durable
          ? "the server keeps what it has acknowledged"
          : "the server may lose what it has acknowledged",
      );
    },
  };
}

/** Reads INFO and CONFIG GET. What the user has no permission to read is unknown. */
async function readFacts(redis: Redis): Promise<ServerFacts> {
  const info = await redis.info().then(
    (text) => new Map(text.split("\r\n").map((line) => line.split(/:(.*)/s) as [string, string])),
    () => undefined,
  );
  if (!info) return {};
  const syncsEveryWrite = info.get("aof_enabled") === "0" ? false : await readAppendfsync(redis);
  return { syncsEveryWrite, problem: problemOf(info) };
}

function problemOf(info: ReadonlyMap<string, string>): string | undefined {
  const version = info.get("redis_version") ?? "";
  if (Number.parseInt(version, 10) < OLDEST_VERSION) {
    return `the server is Redis ${version}; ${OLDEST_VERSION} or newer is required`;
  }
  if (info.get("redis_mode") === "cluster")
    return "the server is part of a Redis Cluster, which is not supported";
  if (info.get("role") === "slave") return "the server is a read-only replica: set url to the primary";
  const policy = info.get("maxmemory_policy") ?? "noeviction";
  if (info.get("maxmemory") === "0" || policy === "noeviction") return undefined;
  return `the server evicts kept data when its memory is full: set maxmemory-policy ${policy} to noeviction`;
}

async function readAppendfsync(redis: Redis): Promise<boolean | undefined> {
  const answer = await redis.config("GET", "appendfsync").catch(() => undefined);
  const value = Array.isArray(answer) ? answer[1] : undefined;
  return value === undefined ? undefined : value === "always";
}
