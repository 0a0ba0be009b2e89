import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { type Clock, type MessageBus, systemClock } from "../../core/index.js";
import { createMemoryBus } from "../../plugins/bus-memory/memory-bus.js";
import type { Guard } from "../../plugins/bus-mqtt/broker/guard.js";
import { createMqttFace, createMqttTables } from "../../plugins/bus-mqtt/broker/mqtt/face.js";
import type { MqttTables } from "../../plugins/bus-mqtt/broker/mqtt/tables.js";
import type { DatabaseKind } from "../../plugins/kit/sqlite/database-kind.js";
import { openDatabase } from "../../plugins/kit/sqlite/open-database.js";
import { mqttClient, type TestClient } from "./mqtt.js";

/** A face on a loopback port, over a bus in memory and tables in a file. */
export interface TestFace {
  readonly bus: MessageBus;
  readonly face: ReturnType<typeof createMqttFace>;
  readonly port: number;
  /** What it logged, with the fields. */
  readonly logged: string[];
  /** Of its file. */
  readonly tables: MqttTables;
  /** The most bytes that wait in this process for one client to read. */
  waiting(): number;
  /** The face alone anew, on the same file and bus. */
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

/** Tokens are names: `a` is agent:a of run `run-a`. */
export const everybody: Guard = {
  async identify(token) {
    if (token === "operator") return { name: "operator" };
    if (!/^[a-z]\d*$/.test(token)) return undefined;
    return { name: `agent:${token}`, agentId: token, runId: `run-${token}` };
  },
  mayPublish: async () => true,
  maySubscribe: async () => true,
};

export async function startFace(guard: Partial<Guard> = {}, clock: Clock = systemClock): Promise<TestFace> {
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
    const face = createMqttFace({
      bus,
      database: file,
      guard: { ...everybody, ...guard },
      clock,
      log,
    });
    return { file, face };
  };
  let opened = await open();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    opened.face.accept(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = async () => {
    await opened.face.close();
    opened.file.close();
  };
  return {
    bus,
    get face() {
      return opened.face;
    },
    get tables() {
      return opened.file.tables;
    },
    port: (server.address() as AddressInfo).port,
    logged,
    waiting: () => Math.max(...[...sockets].map(({ writableLength }) => writableLength)),
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

/** As `startFace`, for this test. */
export async function openFace(...how: Parameters<typeof startFace>): Promise<TestFace> {
  const face = await startFace(...how);
  onTestFinished(() => face.stop());
  return face;
}

/** A client of this name, for this test: gone before the face is. */
export async function enter(
  face: TestFace,
  name: string,
  options: Parameters<typeof mqttClient>[1] = {},
): Promise<TestClient> {
  const client = await mqttClient(face.port, { password: name, ...options });
  onTestFinished(() => client.end("abruptly"));
  return client;
}
