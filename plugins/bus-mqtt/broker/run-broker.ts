import { chmodSync, lstatSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Clock, type Logger, OpenStarryError } from "../../../core/index.js";
import { createBusEngine } from "../../kit/bus/bus-engine.js";
import { createPortMemory } from "../../kit/port-memory.js";
import { socketPath } from "../../kit/socket-path.js";
import { ownerOf } from "../../kit/topics.js";
import { type BrokerSettings, SOCKET_NAME } from "../ipc/broker-settings.js";
import { createCachingAuthorizer } from "./authorizer.js";
import { createDaemonServer } from "./daemon-server.js";
import { listenForClients } from "./mqtt/listen.js";
import { createMqttServer, createMqttTables } from "./mqtt/mqtt-server.js";
import { openDurableStorage } from "./storage/durable-storage.js";

/** Runs the broker: a durable message bus that serves the daemon on a unix socket and agents by MQTT. */
export async function runBroker(settings: BrokerSettings, clock: Clock, log: Logger) {
  const { folder, maxMessages, maxBytes, maxGroups } = settings;
  prepareFolder(folder);
  let problem: string | undefined;
  const storage = await openDurableStorage({
    folder,
    clock,
    maxMessages,
    maxBytes,
    createExtraTables: createMqttTables,
    onProblem(now) {
      problem = now;
      if (now === undefined) log.info({}, "messages can be stored again");
      else log.error({}, now);
      daemons.sendStatus();
    },
  });
  const { bus, stop } = createBusEngine({ name: "mqtt", clock, ...storage, durable: true, maxGroups });
  const daemons = createDaemonServer({
    bus,
    status: () => ({ problem, port: clients.port }),
    onDrop(filter) {
      const agent = ownerOf(filter);
      if (agent !== undefined) authorizer.forgetOwner(agent);
      return mqtt.drop(filter);
    },
    onLiveRuns(live) {
      for (const runId of authorizer.runs()) if (!live.has(runId)) authorizer.endRun(runId);
      mqtt.endRuns((runId) => !live.has(runId));
    },
    onRunOver(runId) {
      authorizer.endRun(runId);
      mqtt.endRuns((it) => it === runId);
    },
  });
  const authorizer = createCachingAuthorizer({ ask: daemons.ask, onDaemon: daemons.onDaemon, clock });
  const mqtt = createMqttServer({ bus, database: storage.extra, authorizer, clock, log });
  // Before the daemon can connect, so that the first status has the port.
  const memory = createPortMemory(join(folder, "port.json"));
  const clients = await listenForClients({ port: settings.port, memory, accept: mqtt.accept });
  await daemons.listen(socketPath(folder, SOCKET_NAME));
  return {
    /** Closes all connections, saves the progress of consumer groups, and closes the file. */
    async close(): Promise<void> {
      clients.close();
      await mqtt.close();
      daemons.close();
      await stop();
      await storage.close();
    },
  };
}

/** Creates the folder with mode 0700. Throws `home_unusable` when it belongs to another user. */
function prepareFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const stats = lstatSync(folder);
  if (!stats.isDirectory() || stats.uid !== process.geteuid?.()) {
    throw new OpenStarryError("home_unusable", {
      detail: `${folder} is not a folder that belongs to this user`,
      hint: "move it away; the broker creates its own folder",
    });
  }
  chmodSync(folder, 0o700);
}
