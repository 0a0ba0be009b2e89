import { chmodSync, lstatSync, mkdirSync } from "node:fs";
import { type Clock, type Logger, OpenStarryError } from "../../core/index.js";
import { createBusEngine } from "../_shared/bus/bus-engine.js";
import { socketPath } from "../_shared/socket-path.js";
import { listenForDaemons } from "./daemon-server.js";
import { createRememberingGuard } from "./guard.js";
import { type Settings, SOCKET_NAME } from "./settings.js";
import { openDurableStorage } from "./storage/durable-storage.js";

/** The broker: a bus in a file, for the daemon by a socket of its own. */
export async function runBroker(settings: Settings, clock: Clock, log: Logger) {
  const { folder, maxMessages, maxBytes, maxGroups } = settings;
  prepareFolder(folder);
  let problem: string | undefined;
  const storage = await openDurableStorage({
    folder,
    clock,
    maxMessages,
    maxBytes,
    onProblem(it) {
      problem = it;
      if (it === undefined) log.info({}, "messages are kept again");
      else log.error({}, it);
      daemons.tellStatus();
    },
  });
  const { bus, stop } = createBusEngine({ name: "mqtt", clock, ...storage, durable: true, maxGroups });
  const daemons = await listenForDaemons({
    path: socketPath(folder, SOCKET_NAME),
    bus,
    status: () => ({ problem }),
    onDrop: async () => {},
    onRuns(live) {
      for (const runId of guard.runs()) if (!live.has(runId)) guard.forgetRun(runId);
    },
    onRunOver: (runId) => guard.forgetRun(runId),
  });
  const guard = createRememberingGuard({ ask: daemons.ask, someone: daemons.someone, clock });
  return {
    /** Writes down where each group stands, and closes the file. */
    async close(): Promise<void> {
      daemons.close();
      await stop();
      await storage.close();
    },
  };
}

/** Throws `home_unusable` when somebody else could look into it. */
function prepareFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const stats = lstatSync(folder);
  if (!stats.isDirectory() || stats.uid !== process.geteuid?.()) {
    throw new OpenStarryError("home_unusable", {
      detail: `${folder} is not a folder of this user's own`,
      hint: "move it away; the broker makes its own",
    });
  }
  chmodSync(folder, 0o700);
}
