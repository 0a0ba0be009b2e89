import type { Redis } from "ioredis";

/** What a server says of itself. */
export interface ServerFacts {
  /** Whether it syncs every write to its disk before it answers. Absent: it does not tell. */
  syncsAlways?: boolean;
  /** Why what is kept there is not safe, or cannot be kept, in words. */
  problem?: string;
}

const OLDEST_VERSION = 7;

/** Asks by INFO and CONFIG GET; what the server's rules forbid us to ask is not known. */
export async function inspectServer(redis: Redis): Promise<ServerFacts> {
  const info = await redis.info().then(
    (text) => new Map(text.split("\r\n").map((line) => line.split(/:(.*)/s) as [string, string])),
    () => undefined,
  );
  if (!info) return {};
  const problem = problemOf(info);
  const syncsAlways = info.get("aof_enabled") === "0" ? false : await asksForSync(redis);
  return {
    ...(syncsAlways === undefined ? {} : { syncsAlways }),
    ...(problem === undefined ? {} : { problem }),
  };
}

function problemOf(info: ReadonlyMap<string, string>): string | undefined {
  const version = info.get("redis_version") ?? "";
  if (Number.parseInt(version, 10) < OLDEST_VERSION) {
    return `the server is Redis ${version}, and ${OLDEST_VERSION} or newer is needed`;
  }
  if (info.get("redis_mode") === "cluster")
    return "the server is part of a Redis Cluster, which cannot be used";
  if (info.get("role") === "slave")
    return "the server is a replica, which cannot be written: name the primary";
  const policy = info.get("maxmemory_policy") ?? "noeviction";
  if (info.get("maxmemory") === "0" || policy === "noeviction") return undefined;
  return `the server throws away what is kept when its memory is used up: set maxmemory-policy ${policy} to noeviction`;
}

async function asksForSync(redis: Redis): Promise<boolean | undefined> {
  const answer = await redis.config("GET", "appendfsync").catch(() => undefined);
  const value = Array.isArray(answer) ? answer[1] : undefined;
  return value === undefined ? undefined : value === "always";
}
