import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../core/index.js";
import { createRemoteBus } from "../../plugins/bus-mqtt/daemon/remote-bus.js";
import type { BrokerSettings } from "../../plugins/bus-mqtt/ipc/broker-settings.js";
import { socketPath } from "../../plugins/kit/socket-path.js";
import type { MessageBusSubject } from "../contract/index.js";
import { waitFor } from "./wait-for.js";

const BROKER = fileURLToPath(new URL("../../dist/plugins/bus-mqtt/broker/broker.js", import.meta.url));

/** Runs the built broker as a process, with a bus connected to it. Call `stop`, also when the test fails. */
export function brokerSubject(folder: string) {
  let broker: ChildProcess | undefined;
  let problem: string | undefined;
  const settings: BrokerSettings = {
    folder,
    maxMessages: 100_000,
    maxBytes: 2 ** 28,
    maxGroups: 100,
    port: 0,
    version: "test",
  };
  const { bus, link } = createRemoteBus({
    path: () => socketPath(folder, "broker.sock"),
    clock: systemClock,
    whyDown: () => undefined,
    onRequest: async () => ({}),
    onStatus: (status) => {
      problem = status?.problem;
    },
  });
  const run = (stderr: "pipe" | "ignore") =>
    spawn(process.execPath, ["--max-old-space-size=128", BROKER, JSON.stringify(settings)], {
      stdio: ["ignore", "ignore", stderr],
    });

  const subject = {
    bus,
    pid: () => broker?.pid,
    /** Returns why messages cannot be stored, as the broker reports it. */
    problem: () => problem,
    startBroker() {
      broker = run("ignore");
    },
    async endBroker(signal: NodeJS.Signals = "SIGTERM") {
      if (!broker || broker.exitCode !== null || broker.signalCode !== null) return;
      const ended = once(broker, "exit");
      broker.kill(signal);
      await ended;
    },
    /** Runs a broker that is expected to exit by itself; resolves with its error output. */
    runToEnd: () => text(run("pipe").stderr as NonNullable<ChildProcess["stderr"]>),
    async start() {
      subject.startBroker();
      await link.open();
      await waitFor(() => bus.health() === undefined, { what: "the broker" });
    },
    async stop() {
      link.close();
      await subject.endBroker();
    },
    reopen: (): MessageBusSubject => brokerSubject(folder),
  };
  return subject;
}
