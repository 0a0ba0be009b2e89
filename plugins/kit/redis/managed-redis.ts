import { createHash } from "node:crypto";
import { join } from "node:path";
import type { PluginContext, ServiceSpec } from "../../../core/index.js";
import { createManagedServer, findProgram, type ManagedServer } from "../managed-server.js";
import { privateFolder, writePrivateFile } from "../private-files.js";
import { readOrCreateSecret } from "../secret-file.js";
import { socketPath } from "../socket-path.js";
import type { RedisServerOptions, RedisTarget } from "./options.js";

/** A Redis server that the daemon runs. */
export interface ManagedRedis extends ManagedServer {
  /** Returns its address and credentials. Throws before `start`. */
  target(): RedisTarget;
  /** The folder with its data. */
  readonly folder: string;
}

export interface ManagedRedisOptions extends Pick<RedisServerOptions, "program" | "eager"> {
  /** The name of the plugin, of its service `svc:NAME` and of its folder in the home. */
  name: string;
}

/**
 * Creates a Redis server in a folder of the home, reachable on a unix socket only and with a password of its own. It
 * syncs every write to the disk before it answers.
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
    // With the hash in its template, a running server is restarted when its config changes.
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
 * The server is not ready while it loads its data, however long that takes, and it is never given up: what keeps it
 * from running, such as a full disk, may pass at any time.
 */
const TEMPLATE = {
  readiness: { type: "log", pattern: "eady to accept connections", timeout: "24h" },
  restart: { policy: "always", max_restarts: 1_000_000, backoff: { min: "200ms", max: "10s" } },
  stop: { signal: "SIGTERM", grace: "30s" },
} as const;

/**
 * Returns the config file. With `aof-load-truncated`, the server drops a write that a power loss has cut short: it was
 * never answered. With `set-proc-title no`, the process keeps its arguments, by which the daemon recognizes it.
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

/** Quotes a path for redis.conf, whose escapes are those of JSON. */
function quoted(path: string): string {
  return JSON.stringify(path);
}
