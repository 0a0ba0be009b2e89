import { randomUUID } from "node:crypto";
import type { ConnectPacket } from "aedes";
import type { Logger, MessageBus } from "../../../../core/index.js";
import type { Guard, Identity } from "../guard.js";
import { createConnection } from "./connection.js";
import {
  MAX_CLIENT_ID_BYTES,
  MAX_CONNECTIONS_OF_ONE,
  MAX_UNRELEASED,
  MAX_UNRELEASED_SESSIONS,
} from "./limits.js";
import { createOutbox } from "./outbox.js";
import { CONNACK, type Desk, type ReturnCode } from "./protocol.js";
import { createPublisher, type Publisher } from "./publisher.js";
import type { Sessions } from "./sessions.js";
import type { MqttStore } from "./store.js";
import { createUnreleased } from "./unreleased.js";
import type { Visitor, Visitors } from "./visitors.js";

export interface DeskOptions {
  bus: MessageBus;
  guard: Guard;
  store: MqttStore;
  sessions: Sessions;
  visitors: Visitors;
  log: Logger;
  /** Clients are not to blame for the end of their connections: their wills are not published. */
  isClosing: () => boolean;
}

/** Who comes in, what they say, and what they are told. */
export function createDesk(options: DeskOptions): Desk {
  const { sessions, visitors, log, isClosing } = options;
  const unreleased = createUnreleased(MAX_UNRELEASED_SESSIONS, MAX_UNRELEASED);
  const greet = createGreeting(options);
  const tellRefused = createRefusals(log);

  return {
    async greet(client, packet) {
      const visitor = visitors.of(client);
      return visitor ? greet(visitor, packet) : CONNACK.unavailable;
    },
    ready: (client) => visitors.of(client)?.connection?.ready(),
    renew: ({ id: session }) => sessions.forget(session),
    subscriptionsOf: (session) =>
      sessions.subscriptions(session).map(({ filter, qos }) => ({ topic: filter, qos })),
    async publish(client, packet) {
      // Of those that have gone, their last will is still to come.
      const visitor = visitors.of(client);
      if (!visitor?.connection) throw new Error("it has not said who it is");
      const { who, publisher } = visitor.connection;
      if (packet === visitor.will) {
        // It was allowed when the client connected; the run may be over by now.
        if (!isClosing()) await publisher.publish(packet, { isAllowed: true });
        return;
      }
      try {
        // One of QoS 2 is published when it is known to be new.
        if (packet.qos === 2) await publisher.mustBeAllowed(packet.topic);
        else await publisher.publish(packet, { isAllowed: false });
      } catch (err) {
        tellRefused(err, who, packet.topic);
        throw err;
      }
    },
    async isPublished(client, { messageId = 0 }) {
      const { session, who } = visitors.connectionOf(client);
      const published = unreleased.find({ session, runId: who.runId }, messageId);
      await published;
      return published !== undefined;
    },
    async publishOnce(client, packet) {
      const { session, who, publisher } = visitors.connectionOf(client);
      const published = publisher.publish(packet, { isAllowed: true });
      unreleased.add({ session, runId: who.runId }, packet.messageId ?? 0, published);
      await published;
    },
    release: ({ id: session }, packetId) => unreleased.release(session, packetId),
    forgetUnreleased: ({ id: session }) => unreleased.forget(session),
    subscribe: async (client, { topic, qos }) =>
      visitors.connectionOf(client).subscribe(topic, qos === 0 ? 0 : 1),
    subscribed(client, filters) {
      for (const filter of filters) visitors.of(client)?.connection?.start(filter);
    },
    unsubscribe: async (client, filters) => visitors.of(client)?.connection?.unsubscribe(filters),
    acked: (client, packetId) => visitors.of(client)?.connection?.acked(packetId),
    failed: (client, err) => log.debug({ err, client: client?.id }, "a connection has failed"),
  };
}

/** A client that comes again and again with the same message is told of once. */
function createRefusals(log: Logger) {
  let refused = 0;
  let told = "";
  return (err: unknown, { name }: Identity, topic: string): void => {
    refused += 1;
    const same = `${name} ${topic}`;
    const level = same === told ? "debug" : "warn";
    told = same;
    log[level]({ err, who: name, topic, refused }, "a message was refused, and its connection closed");
  };
}

/** Who it is, and whether it may come in; it then has the session of its client id to itself. */
function createGreeting({ bus, guard, store, sessions, visitors, log }: DeskOptions) {
  async function seat(visitor: Visitor, { who, publisher, packet }: Guest): Promise<ReturnCode> {
    const { clientId: session, clean: isClean = true } = packet;
    // Whoever uses it makes room first, so that nothing is sent to both.
    for (let other = visitors.userOf(session); other; other = visitors.userOf(session)) {
      await visitors.end(other);
    }
    if (who.agentId !== undefined && visitors.named(who.name).length >= MAX_CONNECTIONS_OF_ONE)
      return CONNACK.unavailable;
    const connection = createConnection({
      ...{ who, session, isClean, bus, guard, store, sessions, publisher },
      outbox: createOutbox(visitor.socket),
      abort(err) {
        log.warn({ err, session }, "the bus cannot be read: a client is to connect again");
        void visitors.end(visitor);
      },
    });
    visitors.seat(visitor, connection);
    // Where that cannot be written, it is only told apart less well from sessions that nobody needs.
    if (!isClean) sessions.touch(session).catch((err) => log.debug({ err, session }, "it was not touched"));
    return CONNACK.accepted;
  }

  return async (visitor: Visitor, packet: ConnectPacket): Promise<ReturnCode> => {
    const token = packet.password?.toString();
    const who = token ? await guard.identify(token) : undefined;
    if (!who) return CONNACK.badCredentials;
    if (!isClientId(packet)) return CONNACK.badClientId;
    const publisher = createPublisher({ who, bus, store, guard });
    if (packet.will && !(await isAllowed(publisher.mustBeAllowed(packet.will.topic))))
      return CONNACK.forbidden;
    visitor.will = packet.will;
    // So that nobody can take over another's session.
    packet.clientId = `${who.name}/${packet.clientId || randomUUID()}`;
    return seat(visitor, { who, publisher, packet });
  };
}

/** Somebody who may come in. */
interface Guest {
  who: Identity;
  publisher: Publisher;
  packet: ConnectPacket;
}

async function isAllowed(asked: Promise<void>): Promise<boolean> {
  return asked.then(
    () => true,
    () => false,
  );
}

/** A session that is kept needs a name to be found by (MQTT 3.1.1, 3.1.3.1). */
function isClientId({ clientId, clean }: ConnectPacket): boolean {
  if (!clientId) return clean !== false;
  return Buffer.byteLength(clientId) <= MAX_CLIENT_ID_BYTES && !/[\p{Cc}\p{Cs}]/u.test(clientId);
}
