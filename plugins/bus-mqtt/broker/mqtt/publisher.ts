import type { MessageBus } from "../../../../core/index.js";
import { MAX_PAYLOAD_BYTES, topic as topicSchema } from "../../../kit/topic-schemas.js";
import { REPLY_TOPICS } from "../../../kit/topics.js";
import type { Identity } from "../../ipc/identity.js";
import type { Authorizer } from "../authorizer.js";
import { MAX_RETAINED, MAX_RETAINED_PER_IDENTITY } from "./limits.js";
import type { MqttStore } from "./store.js";
import type { RetainedTotals } from "./tables.js";

/** A PUBLISH or a will, as aedes hands it over. */
export interface Incoming {
  topic: string;
  payload: string | Uint8Array;
  qos: 0 | 1 | 2;
  retain: boolean;
}

export interface Publisher {
  /** Rejects with the reason when this client must not publish to the topic. */
  assertAllowed(topic: string): Promise<void>;
  /** Resolves when the bus has the message: stored, for QoS 1 and 2. Publishes in the order of the calls. */
  publish(message: Incoming, options: { isAuthorized: boolean }): Promise<void>;
}

export interface PublisherOptions {
  who: Identity;
  bus: MessageBus;
  store: MqttStore;
  authorizer: Authorizer;
}

/** Creates the publisher of one client's messages. */
export function createPublisher({ who, bus, store, authorizer }: PublisherOptions): Publisher {
  /** Messages keep their order although each may wait for the authorizer. */
  let lastStarted: Promise<unknown> = Promise.resolve();

  async function assertAllowed(topic: string): Promise<void> {
    const problem = topicProblem(topic);
    if (problem !== undefined) throw new Error(`bad topic: ${problem}`);
    if (!(await authorizer.mayPublish(who, topic))) throw new Error(`${who.name} may not publish there`);
  }

  /** Publishes and retains in the same turn of the event loop, so that the last message published is retained. */
  async function put(message: Incoming): Promise<void> {
    const { topic, qos, retain } = message;
    const payload = typeof message.payload === "string" ? Buffer.from(message.payload) : message.payload;
    if (payload.byteLength > MAX_PAYLOAD_BYTES) throw new Error("the payload has more than 1 MiB");
    if (retain) assertRetainable(topic, payload.byteLength);
    // A reply is of use only to the client that waits for it now.
    const keep = qos > 0 && topic.split("/")[0] !== REPLY_TOPICS;
    const published = bus.publish({ topic, payload, from: who.name }, { keep });
    const retained = retain ? updateRetained(topic, payload, qos === 0 ? 0 : 1) : undefined;
    await Promise.all([published, retained]);
  }

  function updateRetained(topic: string, payload: Uint8Array, qos: 0 | 1): Promise<void> {
    // An empty payload removes the retained message (MQTT 3.1.1, 3.3.1.3).
    if (payload.byteLength === 0) return store.write((tables) => tables.removeRetained(topic));
    return store.write((tables) => tables.retain({ topic, owner: who.name, qos, payload }));
  }

  function assertRetainable(topic: string, bytes: number): void {
    if (bytes === 0) return;
    const { tables } = store;
    const replaced = tables.retained(topic);
    const isFull = (used: RetainedTotals, max: RetainedTotals) =>
      used.messages + (replaced ? 0 : 1) > max.messages ||
      used.bytes + bytes - (replaced?.payload.byteLength ?? 0) > max.bytes;
    if (isFull(tables.retainedTotals(who.name), MAX_RETAINED_PER_IDENTITY)) {
      throw new Error(`${who.name} has reached its limit of retained messages`);
    }
    if (isFull(tables.retainedTotals(), MAX_RETAINED)) {
      throw new Error("the broker has reached its limit of retained messages");
    }
  }

  return {
    assertAllowed,
    async publish(message, { isAuthorized }) {
      const started = lastStarted.then(async () => {
        if (!isAuthorized) await assertAllowed(message.topic);
        return { done: put(message) };
      });
      lastStarted = started.catch(() => {});
      const { done } = await started;
      await done;
    },
  };
}

/** Says why a topic is not valid; `undefined` when it is. */
function topicProblem(topic: string): string | undefined {
  if (topic.startsWith("$"))
    return "topics that begin with $ are reserved for the broker, and this one has none";
  const { error } = topicSchema.safeParse(topic);
  return error?.issues[0]?.message;
}
