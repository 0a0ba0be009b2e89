import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { definePlugin, isLive, type MessageBus, messageBus, OpenStarryError } from "openstarry-daemon";
import { readOrCreateSecret } from "openstarry-daemon/kit";
import { z } from "zod";
import { busOver, type Connection, connectBus, type Fail } from "./client.js";
import { keyOf } from "./keys.js";

const BROKER = fileURLToPath(new URL("./broker.js", import.meta.url));
/** sun_path of unix(7), less the byte that ends it. */
const MAX_PATH_BYTES = 107;
const RETRY_MS = 100;

const fail: Fail = (code, detail) =>
  new OpenStarryError(code, {
    detail,
    ...(code === "bus_unavailable"
      ? { hint: "ask again: the daemon starts the broker when it has ended" }
      : {}),
  });

/**
 * A message bus that is a process of its own, `svc:line`: it outlives the daemon, and each run of an agent
 * has a key of its own to it, which opens nothing once that run is over.
 */
export default definePlugin({
  name: "bus-line",
  apiVersion: 1,
  version: "1.0.0",
  provides: [messageBus],
  options: z.strictObject({}),
  setup(ctx) {
    const folder = join(ctx.dataDir, "bus-line");
    const path = join(folder, "bus.sock");
    /** The run that lives, or is about to, by agent: who the broker lets in. */
    const runs = new Map<string, string>();
    let secret = "";
    let connection: Connection | undefined;
    let isStopped = false;
    let cancel = () => {};

    const open = (): Connection => {
      if (connection?.isOpen()) return connection;
      throw fail("bus_unavailable", "the broker svc:line is not connected");
    };
    /** All of them, whenever one comes or goes: what the broker knows is never a mixture. */
    const tellRuns = async () => {
      await connection?.call({ op: "runs", runs: Object.fromEntries(runs) }).catch(() => {});
    };

    /** Again and again until the broker is there, and again when it is gone. */
    async function keepConnected(): Promise<void> {
      const made = await connectBus(path, { key: keyOf(secret, { kind: "daemon" }) }, fail).catch(
        () => undefined,
      );
      if (made && !isStopped) {
        connection = made;
        await tellRuns();
        await made.closed;
      }
      if (isStopped) made?.close();
      else cancel = ctx.clock.after(RETRY_MS, () => void keepConnected());
    }

    const bus: MessageBus = {
      name: "line",
      capabilities: { durable: false },
      ...busOver(open, fail),
      health: () => (connection?.isOpen() ? undefined : "the broker svc:line is not connected"),
      urlFor({ agent_id: agent, run_id: run }) {
        // Asked for when a run is about to start: from now on the broker knows it, and not the one before.
        runs.set(agent, run);
        void tellRuns();
        const key = keyOf(secret, { kind: "agent", agent, run });
        const place = path.split("/").map(encodeURIComponent).join("/");
        return `unix:${place}?${new URLSearchParams({ agent, run, key })}`;
      },
    };
    ctx.provide(messageBus, bus);
    ctx.hooks.afterExit.tap("close its key", ({ run }) => {
      if (runs.get(run.agent_id) !== run.run_id) return;
      runs.delete(run.agent_id);
      void tellRuns();
    });

    return {
      async start() {
        if (Buffer.byteLength(path) > MAX_PATH_BYTES) {
          throw new OpenStarryError("home_unusable", {
            detail: `the socket ${path} has a path of more than ${MAX_PATH_BYTES} bytes`,
            hint: "give the daemon a folder with a shorter path (--home)",
          });
        }
        mkdirSync(folder, { recursive: true, mode: 0o700 });
        secret = readOrCreateSecret(join(folder, "secret"));
        // Runs that went on while there was no daemon.
        for (const { agent_id, run_id, state } of ctx.agents.list()) {
          if (isLive(state) && run_id !== undefined) runs.set(agent_id, run_id);
        }
        await ctx.services.ensure("line", {
          template: {
            description: "The broker of the message bus.",
            command: process.execPath,
            args: [BROKER, folder],
            restart: { policy: "always" },
          },
        });
        void keepConnected();
      },
      stop() {
        isStopped = true;
        cancel();
        connection?.close();
      },
    };
  },
});
