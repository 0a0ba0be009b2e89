import { createHash } from "node:crypto";
import { join } from "node:path";
import type { PluginContext, ServiceSpec } from "../../../core/index.js";
import { createManagedServer, findProgram, type ManagedServer } from "../managed-server.js";
import { privateFolder, writePrivateFile } from "../private-files.js";
import { readOrCreateSecret } from "../secret-file.js";
import { socketPath } from "../socket-path.js";
import type { RedisChoice, RedisTarget } from "./options.js";

/** A server of the daemon's own, and where it is. */
export interface ManagedRedis extends ManagedServer {
  /** After `start`. */
  target(): RedisTarget;
  /** Where it keeps its data. */
  readonly folder: string;
}

export interface ManagedRedisOptions extends Pick<RedisChoice, "program" | "eager"> {
  /** The plugin's: of the service `svc:NAME` and of its folder in the home. */
  name: string;
}

/**
 * A Redis server in a folder of the home, at a unix socket only, with a password of its own: what it has answered
 * is on the disk.
 */
export function createManagedRedis(
  ctx: Pick<PluginContext, "services" | "log" | "dataDir">,
  { name, program, eager }: ManagedRedisOptions,
): ManagedRedis {
  const folder = join(ctx.dataDir, name);
  let target: RedisTarget | undefined;

  function template(): ServiceSpec["template"] {
    const install = "apt install redis-server";
    const command = findProgram({ name: "redis-server", path: program, install, plugin: name });
    privateFolder(folder);
    const socket = socketPath(folder, "redis.sock");
    const password = readOrCreateSecret(join(folder, "password"));
    const config = join(folder, "redis.conf");
    const text = configText({ folder, socket, password });
    writePrivateFile(config, text);
    target = { address: `svc:${name}`, options: { path: socket, password } };
    // A server that runs by another config than this one is restarted.
    const labels = { config: createHash("sha256").update(text).digest("hex").slice(0, 12) };
    return { ...TEMPLATE, description: `The Redis server of ${name}.`, command, args: [config], labels };
  }

  const server = createManagedServer(ctx, { name, eager, template });
  return {
    ...server,
    folder,
    target() {
      if (target) return target;
      throw new Error(`${name} has not been started`);
    },
  };
}

/**
 * It is not ready while it reads its data from the disk, however long that takes; and it is never given up: what
 * keeps it from running, such as a full disk, may end at any time.
 */
const TEMPLATE = {
  readiness: { type: "log", pattern: "eady to accept connections", timeout: "24h" },
  restart: { policy: "always", max_restarts: 1_000_000, backoff: { min: "200ms", max: "10s" } },
  stop: { signal: "SIGTERM", grace: "30s" },
} as const;

/**
 * Every write is synced before it is answered. What was written half when the power failed is left out at the
 * next start: it was never answered. Without a title of its own it can be recognised by its arguments.
 */
function configText({ folder, socket, password }: Record<"folder" | "socket" | "password", string>): string {
  return `# Written by openstarry-daemon at every start.
port 0
unixsocket ${quoted(socket)}
unixsocketperm 600
requirepass ${password}
daemonize no
supervised no
set-proc-title no
dir ${quoted(folder)}
save ""
appendonly yes
appendfsync always
aof-load-truncated yes
maxmemory-policy noeviction
`;
}

/** As redis.conf has it: in quotes, with JSON's escapes for what is not plain. */
function quoted(path: string): string {
  return JSON.stringify(path);
}
