import type { MessageBus } from "../../../../core/index.js";
import { MAX_PAYLOAD_BYTES, topic as topicSchema } from "../../../kit/topic-schemas.js";
import { REPLY_TOPICS } from "../../../kit/topics.js";
import type { Guard, Identity } from "../guard.js";
import { MAX_RETAINED, MAX_RETAINED_OF_ONE } from "./limits.js";
import type { MqttStore } from "./store.js";
import type { Space } from "./tables.js";

/** A PUBLISH or a will, as aedes hands it over. */
export interface Incoming {
  topic: string;
  payload: string | Uint8Array;
  qos: 0 | 1 | 2;
  retain: boolean;
}

export interface Publisher {
  /** Rejects with the reason why this client may not publish there. */
  mustBeAllowed(topic: string): Promise<void>;
  /** Resolves when the bus has it, durably with QoS 1 and 2. In the order of the calls. */
  publish(message: Incoming, options: { isAllowed: boolean }): Promise<void>;
}

export interface PublisherOptions {
  who: Identity;
  bus: MessageBus;
  store: MqttStore;
  guard: Guard;
}

/** What one client says. */
export function createPublisher({ who, bus, store, guard }: PublisherOptions): Publisher {
  /** Whoever asks the guard waits for those before. */
  let turn: Promise<unknown> = Promise.resolve();

  async function mustBeAllowed(topic: string): Promise<void> {
    const problem = topicProblem(topic);
    if (problem !== undefined) throw new Error(`bad topic: ${problem}`);
    if (!(await guard.mayPublish(who, topic))) throw new Error(`${who.name} may not publish there`);
  }

  /** Both are asked for in one turn of the event loop, so that all see the last retained message as the last. */
  async function put(message: Incoming): Promise<void> {
    const { topic, qos, retain } = message;
    const payload = typeof message.payload === "string" ? Buffer.from(message.payload) : message.payload;
    if (payload.byteLength > MAX_PAYLOAD_BYTES) throw new Error("its payload has more than 1 MiB");
    if (retain) mustHaveRoom(topic, payload.byteLength);
    // An answer is for the one who waits for it now.
    const keep = qos > 0 && topic.split("/")[0] !== REPLY_TOPICS;
    const kept = bus.publish({ topic, payload, from: who.name }, { keep });
    const retained = retain ? keepRetained(topic, payload, qos === 0 ? 0 : 1) : undefined;
    await Promise.all([kept, retained]);
  }

  function keepRetained(topic: string, payload: Uint8Array, qos: 0 | 1): Promise<void> {
    // MQTT 3.1.1, 3.3.1.3: one without a payload removes it.
    if (payload.byteLength === 0) return store.write((tables) => tables.forgetRetained(topic));
    return store.write((tables) => tables.retain({ topic, owner: who.name, qos, payload }));
  }

  function mustHaveRoom(topic: string, bytes: number): void {
    if (bytes === 0) return;
    const { tables } = store;
    const before = tables.retained(topic);
    const isFull = (taken: Space, max: Space) =>
      taken.messages + (before ? 0 : 1) > max.messages ||
      taken.bytes + bytes - (before?.payload.byteLength ?? 0) > max.bytes;
    if (isFull(tables.retainedSpace(who.name), MAX_RETAINED_OF_ONE)) {
      throw new Error(`${who.name} retains as many messages as one may`);
    }
    if (isFull(tables.retainedSpace(), MAX_RETAINED)) throw new Error("no more messages can be retained");
  }

  return {
    mustBeAllowed,
    async publish(message, { isAllowed }) {
      const begun = turn.then(async () => {
        if (!isAllowed) await mustBeAllowed(message.topic);
        return { done: put(message) };
      });
      turn = begun.catch(() => {});
      const { done } = await begun;
      await done;
    },
  };
}

/** Why it is none, in words. */
function topicProblem(topic: string): string | undefined {
  if (topic.startsWith("$")) return "what begins with $ is the broker's own, and this one has nothing there";
  const { error } = topicSchema.safeParse(topic);
  return error?.issues[0]?.message;
}
