import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../core/index.js";
import { socketPath } from "../../plugins/_shared/socket-path.js";
import { createDriver } from "../../plugins/bus-mqtt/driver.js";
import type { Settings } from "../../plugins/bus-mqtt/settings.js";
import type { MessageBusSubject } from "../contract/index.js";
import { waitFor } from "./wait-for.js";

const BROKER = fileURLToPath(new URL("../../dist/plugins/bus-mqtt/broker.js", import.meta.url));

/** The built broker as a process of its own, and a driver on it. */
export function brokerSubject(folder: string, settings: Partial<Settings> = {}) {
  let broker: ChildProcess | undefined;
  const given: Settings = {
    folder,
    maxMessages: 100_000,
    maxBytes: 2 ** 28,
    maxGroups: 100,
    port: 0,
    version: "test",
    ...settings,
  };
  const driver = createDriver({
    path: () => socketPath(folder, "broker.sock"),
    clock: systemClock,
    whyNot: () => undefined,
    onRequest: async () => ({}),
    onStatus: () => {},
  });
  const startBroker = () => {
    broker = spawn(process.execPath, ["--max-old-space-size=128", BROKER, JSON.stringify(given)], {
      stdio: ["ignore", "ignore", "inherit"],
    });
  };
  const subject = {
    bus: driver.bus,
    pid: () => broker?.pid,
    startBroker,
    async endBroker(signal: NodeJS.Signals = "SIGTERM") {
      if (broker && broker.exitCode === null && broker.signalCode === null) {
        const ended = once(broker, "exit");
        broker.kill(signal);
        await ended;
      }
    },
    async start() {
      startBroker();
      await driver.link.open();
      await waitFor(() => driver.bus.health() === undefined, { what: "the broker" });
    },
    async stop() {
      driver.link.close();
      await subject.endBroker();
    },
    reopen: (): MessageBusSubject => brokerSubject(folder, settings),
  };
  return subject;
}
