import { chmodSync, lstatSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Clock, type Logger, OpenStarryError } from "../../../core/index.js";
import { createBusEngine } from "../../kit/bus/bus-engine.js";
import { createPortMemory } from "../../kit/port-memory.js";
import { socketPath } from "../../kit/socket-path.js";
import { ownerOf } from "../../kit/topics.js";
import { type Settings, SOCKET_NAME } from "../settings.js";
import { createDaemonServer } from "./daemon-server.js";
import { createRememberingGuard } from "./guard.js";
import { createMqttFace, createMqttTables } from "./mqtt/face.js";
import { listenForClients } from "./mqtt/listen.js";
import { openDurableStorage } from "./storage/durable-storage.js";

/** The broker: a bus in a file, for the daemon by a socket of its own, for agents by MQTT. */
export async function runBroker(settings: Settings, clock: Clock, log: Logger) {
  const { folder, maxMessages, maxBytes, maxGroups } = settings;
  prepareFolder(folder);
  let problem: string | undefined;
  const storage = await openDurableStorage({
    folder,
    clock,
    maxMessages,
    maxBytes,
    prepare: createMqttTables,
    onProblem(it) {
      problem = it;
      if (it === undefined) log.info({}, "messages are kept again");
      else log.error({}, it);
      daemons.tellStatus();
    },
  });
  const { bus, stop } = createBusEngine({ name: "mqtt", clock, ...storage, durable: true, maxGroups });
  const daemons = createDaemonServer({
    bus,
    status: () => ({ problem, port: clients.port }),
    onDrop(filter) {
      const agent = ownerOf(filter);
      if (agent !== undefined) guard.forgetOwner(agent);
      return face.drop(filter);
    },
    onRuns(live) {
      for (const runId of guard.runs()) if (!live.has(runId)) guard.forgetRun(runId);
      face.endRuns((runId) => !live.has(runId));
    },
    onRunOver(runId) {
      guard.forgetRun(runId);
      face.endRuns((it) => it === runId);
    },
  });
  const guard = createRememberingGuard({ ask: daemons.ask, onDaemon: daemons.onDaemon, clock });
  const face = createMqttFace({ bus, database: storage.others, guard, clock, log });
  // Before daemons, so that the first thing they are told is where clients connect.
  const { accept } = face;
  const memory = createPortMemory(join(folder, "port.json"));
  const clients = await listenForClients({ port: settings.port, memory, accept });
  await daemons.listen(socketPath(folder, SOCKET_NAME));
  return {
    /** Writes down where each group stands, and closes the file. */
    async close(): Promise<void> {
      clients.close();
      await face.close();
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
