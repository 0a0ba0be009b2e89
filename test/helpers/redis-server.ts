import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { missingProgram } from "./programs.js";
import { waitFor } from "./wait-for.js";

/** Says why tests with a Redis server are skipped here; `undefined` when they run. */
export const noRedis = missingProgram("redis-server", "redis-server");

export interface TestRedis {
  /** The value for the option `url`. */
  readonly url: string;
  /** A client for the test itself. */
  readonly client: Redis;
  pid(): number;
  /** Resolves when the server is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Starts it again on the same data. */
  start(): Promise<void>;
  /** Kills it and removes its folder. */
  stop(): Promise<void>;
}

/** Starts a Redis server on a unix socket in a temporary folder, with `settings` as in redis.conf. */
export async function startRedis(settings: Record<string, string> = {}): Promise<TestRedis> {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-redis-"));
  const data = join(folder, "data");
  mkdirSync(data);
  const path = join(folder, "redis.sock");
  const all = { port: "0", unixsocket: path, dir: data, save: "", appendonly: "yes", ...settings };
  const args = Object.entries(all).flatMap(([name, value]) => [`--${name}`, value]);
  const password = settings["requirepass"];
  const client = new Redis({ path, lazyConnect: true, ...(password ? { password } : {}) });
  client.on("error", () => {});
  let server: ChildProcess;
  const killNow = () => void server.kill("SIGKILL");

  const start = async () => {
    server = spawn("redis-server", args, { stdio: "ignore" });
    const up = async () => (await client.ping().catch(() => undefined)) === "PONG";
    await waitFor(up, { what: "the Redis server" });
  };
  const kill = async (signal: NodeJS.Signals = "SIGKILL") => {
    if (server.exitCode !== null || server.signalCode !== null) return;
    const gone = once(server, "exit");
    server.kill(signal);
    await gone;
  };
  process.once("exit", killNow);
  await start();
  return {
    url: `unix://${path}`,
    client,
    pid: () => server.pid as number,
    kill,
    start,
    async stop() {
      client.disconnect();
      await kill();
      process.off("exit", killNow);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
