import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { systemClock } from "../../dist/core/index.js";

/** A server of its own that syncs every write, with a bare client, and what a plugin is given to use it by `url`. */
export async function startRedis(name) {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-bench-"));
  const path = join(folder, "redis.sock");
  const settings = {
    port: "0",
    unixsocket: path,
    dir: folder,
    save: "",
    appendonly: "yes",
    appendfsync: "always",
  };
  const args = Object.entries(settings).flatMap(([key, value]) => [`--${key}`, value]);
  const server = spawn("redis-server", args, { stdio: "ignore" });
  const gone = once(server, "exit");
  const redis = new Redis({ path });
  redis.on("error", () => {});
  await redis.ping();
  const nothing = () => {};
  return {
    redis,
    options: { url: `unix://${path}`, managed: false, prefix: "openstarry" },
    ctx: {
      name,
      clock: systemClock,
      log: { debug: nothing, info: nothing, warn: nothing, error: console.error },
      daemon: { status: () => ({ state: "ready" }), degraded: console.error, recovered: nothing },
      services: {},
    },
    async stop() {
      redis.disconnect();
      server.kill("SIGTERM");
      await gone;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
