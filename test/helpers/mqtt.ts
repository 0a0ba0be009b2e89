import { connect, type IClientOptions, type MqttClient } from "mqtt";
import { waitFor } from "./wait-for.js";

/** A message as a client got it. */
export interface Got {
  topic: string;
  text: string;
  qos: number;
  dup: boolean;
  retain: boolean;
}

export interface TestClient {
  readonly mqtt: MqttClient;
  /** All that came, in order. */
  readonly got: Got[];
  /** Resolves at the end of its connection, which is still to come. */
  closed(): Promise<void>;
  /** Resolves with the texts of the first `count`. */
  texts(count: number): Promise<string[]>;
  /** Ends the connection as a crash does, or with a DISCONNECT. */
  end(how?: "abruptly"): Promise<void>;
}

/** The real `mqtt` client, speaking 3.1.1. Does not reconnect unless asked to. Rejects when it is not let in. */
export async function mqttClient(port: number, options: IClientOptions = {}): Promise<TestClient> {
  const mqtt = connect({
    host: "127.0.0.1",
    port,
    protocolVersion: 4,
    reconnectPeriod: 0,
    username: "any",
    ...options,
  });
  const got: Got[] = [];
  mqtt.on("message", (topic, payload, { qos, dup, retain }) => {
    got.push({ topic, text: payload.toString(), qos, dup, retain });
  });
  await new Promise<void>((resolve, reject) => {
    mqtt.once("connect", () => resolve());
    mqtt.once("error", reject);
    mqtt.once("close", () => reject(new Error("closed before it was connected")));
  }).catch((error: unknown) => {
    // Nor later.
    mqtt.end(true);
    throw error;
  });
  mqtt.on("error", () => {});
  const closed = () => new Promise<void>((resolve) => mqtt.once("close", () => resolve()));
  return {
    mqtt,
    got,
    closed,
    async texts(count) {
      await waitFor(() => got.length >= count, {
        what: `${count} messages`,
        timeoutMs: 10_000,
        diagnose: () => got,
      });
      return got.slice(0, count).map(({ text }) => text);
    },
    async end(how) {
      if (how === "abruptly") {
        if (mqtt.stream.destroyed) return;
        const gone = closed();
        mqtt.stream.destroy();
        await gone;
        await mqtt.endAsync(true);
      } else await mqtt.endAsync();
    },
  };
}
