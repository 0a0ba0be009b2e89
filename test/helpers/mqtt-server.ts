import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { type Clock, type MessageBus, systemClock } from "../../core/index.js";
import { createMemoryBus } from "../../plugins/bus-memory/memory-bus.js";
import type { Authorizer } from "../../plugins/bus-mqtt/broker/authorizer.js";
import { createMqttServer, createMqttTables } from "../../plugins/bus-mqtt/broker/mqtt/mqtt-server.js";
import type { MqttTables } from "../../plugins/bus-mqtt/broker/mqtt/tables.js";
import type { DatabaseKind } from "../../plugins/kit/sqlite/database-kind.js";
import { openDatabase } from "../../plugins/kit/sqlite/open-database.js";
import { mqttClient, type TestClient } from "./mqtt.js";

/** An MQTT server on a loopback port, with a bus in memory and tables in a file. */
export interface TestMqttServer {
  readonly bus: MessageBus;
  readonly mqtt: ReturnType<typeof createMqttServer>;
  readonly port: number;
  /** The log lines, with their fields. */
  readonly logged: string[];
  readonly tables: MqttTables;
  /** Returns the largest number of bytes that are buffered here for one client. */
  maxBufferedBytes(): number;
  /** Restarts the MQTT server on the same file and bus. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

const kind: DatabaseKind = {
  fileName: "bus.db",
  noun: "a bus",
  unavailable: "bus_unavailable",
  applicationId: 0x4f53_4d54,
  schemaVersion: 1,
  schema: "CREATE TABLE unused (one INTEGER PRIMARY KEY);",
  migrations: {},
  alwaysChecked: "unused",
  damageHint: "none",
};

/** Allows everything. Tokens are names: `a` is `agent:a` in its run `run-a`. */
const allowAll: Authorizer = {
  async identify(token) {
    if (token === "operator") return { name: "operator" };
    if (!/^[a-z]\d*$/.test(token)) return undefined;
    return { name: `agent:${token}`, agentId: token, runId: `run-${token}` };
  },
  mayPublish: async () => true,
  maySubscribe: async () => true,
};

async function startMqttServer(
  authorizer: Partial<Authorizer> = {},
  clock: Clock = systemClock,
): Promise<TestMqttServer> {
  const dir = mkdtempSync(join(tmpdir(), "openstarry-mqtt-"));
  const { bus, stop } = createMemoryBus(systemClock, {
    maxMessages: 10_000,
    maxBytes: 64 * 2 ** 20,
    maxGroups: 1_000,
  });
  const logged: string[] = [];
  const write = (level: string) => (fields: object, message: string) => {
    const { err, ...rest } = fields as { err?: Error };
    logged.push(`${level} ${message} ${JSON.stringify(rest)} ${err?.message ?? ""}`);
  };
  const log = { debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
  const sockets = new Set<Socket>();
  const open = async () => {
    const file = await openDatabase(kind, dir, createMqttTables);
    const mqtt = createMqttServer({
      bus,
      database: file,
      authorizer: { ...allowAll, ...authorizer },
      clock,
      log,
    });
    return { file, mqtt };
  };
  let opened = await open();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    opened.mqtt.accept(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = async () => {
    await opened.mqtt.close();
    opened.file.close();
  };
  return {
    bus,
    get mqtt() {
      return opened.mqtt;
    },
    get tables() {
      return opened.file.tables;
    },
    port: (server.address() as AddressInfo).port,
    logged,
    maxBufferedBytes: () => Math.max(...[...sockets].map(({ writableLength }) => writableLength)),
    async restart() {
      await close();
      opened = await open();
    },
    async stop() {
      await close();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      await stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Starts an MQTT server for this test. */
export async function openMqttServer(
  ...options: Parameters<typeof startMqttServer>
): Promise<TestMqttServer> {
  const server = await startMqttServer(...options);
  onTestFinished(() => server.stop());
  return server;
}

/** Connects a client with this token for this test; it is disconnected before the server stops. */
export async function connectAs(
  server: TestMqttServer,
  token: string,
  options: Parameters<typeof mqttClient>[1] = {},
): Promise<TestClient> {
  const client = await mqttClient(server.port, { password: token, ...options });
  onTestFinished(() => client.end("abruptly"));
  return client;
}
