import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { missingProgram } from "./programs.js";
import { waitFor } from "./wait-for.js";

/** Returns why `nats-server` cannot be run here, for `test.skipIf`. */
export const missingNatsServer = () => missingProgram("nats-server", "nats-server");

export interface NatsServer {
  readonly port: number;
  readonly url: string;
  pid(): number | undefined;
  /** Kills it with SIGKILL. Its data stay. */
  kill(): Promise<void>;
  /** Starts it again on the same port and data. */
  start(): Promise<void>;
  /** Kills it and removes its folder. */
  stop(): Promise<void>;
}

export interface NatsServerOptions {
  /** Further lines of the config file. */
  config?: string;
  /** Whether JetStream is enabled. Default true. */
  jetstream?: boolean;
}

/** Starts a NATS server on a loopback port. It is killed at the end of the test process at the latest. */
export async function startNatsServer(options: NatsServerOptions = {}): Promise<NatsServer> {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-nats-"));
  const port = await freePort();
  const config = join(folder, "server.conf");
  const jetstream = options.jetstream === false ? "" : `jetstream { store_dir: "${join(folder, "data")}" }`;
  writeFileSync(config, `listen: "127.0.0.1:${port}"\n${jetstream}\n${options.config ?? ""}\n`);
  let child: ChildProcess | undefined;
  const killNow = () => void child?.kill("SIGKILL");
  process.once("exit", killNow);

  const server: NatsServer = {
    port,
    url: `nats://127.0.0.1:${port}`,
    pid: () => child?.pid,
    async kill() {
      if (!child) return;
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
      child = undefined;
    },
    async start() {
      const started = spawn("nats-server", ["-c", config], { stdio: ["ignore", "ignore", "pipe"] });
      child = started;
      let output = "";
      started.stderr?.setEncoding("utf8").on("data", (text) => {
        output += text;
      });
      await waitFor(() => answers(port), { what: "nats-server", timeoutMs: 20_000, diagnose: () => output });
    },
    async stop() {
      await server.kill();
      process.off("exit", killNow);
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
  await server.start();
  return server;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

/** Returns whether the server has sent its first line, which it does when JetStream is ready too. */
function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("data", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
