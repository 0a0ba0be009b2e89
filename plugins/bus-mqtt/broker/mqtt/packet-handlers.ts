import type { Logger } from "../../../../core/index.js";
import type { Identity } from "../../ipc/identity.js";
import { type ConnectHandlerOptions, createConnectHandler } from "./connect-handler.js";
import { MAX_QOS2_INFLIGHT, MAX_QOS2_INFLIGHT_SESSIONS } from "./limits.js";
import { CONNACK, type PacketHandlers } from "./protocol.js";
import { createQos2Inflight } from "./qos2-inflight.js";

export interface PacketHandlersOptions extends ConnectHandlerOptions {
  /** Whether the server closes: then the ends of connections are not the clients' fault, and publish no wills. */
  isClosing: () => boolean;
}

/** Creates the handlers of the packets that clients send. */
export function createPacketHandlers(options: PacketHandlersOptions): PacketHandlers {
  const { sessions, connections, log, isClosing } = options;
  const inflight = createQos2Inflight(MAX_QOS2_INFLIGHT_SESSIONS, MAX_QOS2_INFLIGHT);
  const onConnect = createConnectHandler(options);
  const logRefusal = createRefusalLog(log);

  return {
    async onConnect(client, packet) {
      const connection = connections.of(client);
      return connection ? onConnect(connection, packet) : CONNACK.unavailable;
    },
    onReady: (client) => connections.of(client)?.session?.ready(),
    resetSession: ({ id }) => sessions.remove(id),
    subscriptionsOf: (sessionId) =>
      sessions.subscriptions(sessionId).map(({ filter, qos }) => ({ topic: filter, qos })),
    async onPublish(client, packet) {
      // Not `sessionOf`: a will is published after its client has disconnected.
      const connection = connections.of(client);
      if (!connection?.session) throw new Error("the client has not connected yet");
      const { who, publisher } = connection.session;
      if (packet === connection.will) {
        // Authorized at CONNECT; by now the run may be over.
        if (!isClosing()) await publisher.publish(packet, { isAuthorized: true });
        return;
      }
      try {
        // A message of QoS 2 is published by `publishQos2`, when it is known not to be a repetition.
        if (packet.qos === 2) await publisher.assertAllowed(packet.topic);
        else await publisher.publish(packet, { isAuthorized: false });
      } catch (err) {
        logRefusal(err, who, packet.topic);
        throw err;
      }
    },
    async isPublished(client, { messageId = 0 }) {
      const { id: sessionId, who } = connections.sessionOf(client);
      const published = inflight.find({ sessionId, runId: who.runId }, messageId);
      await published;
      return published !== undefined;
    },
    async publishQos2(client, packet) {
      const { id: sessionId, who, publisher } = connections.sessionOf(client);
      const published = publisher.publish(packet, { isAuthorized: true });
      inflight.add({ sessionId, runId: who.runId }, packet.messageId ?? 0, published);
      await published;
    },
    onPubrel: ({ id }, packetId) => inflight.release(id, packetId),
    clearInflight: ({ id }) => inflight.clear(id),
    onSubscribe: async (client, { topic, qos }) =>
      connections.sessionOf(client).subscribe(topic, qos === 0 ? 0 : 1),
    onSubscribed(client, filters) {
      for (const filter of filters) connections.of(client)?.session?.start(filter);
    },
    onUnsubscribe: async (client, filters) => connections.of(client)?.session?.unsubscribe(filters),
    onPuback: (client, packetId) => connections.of(client)?.session?.acked(packetId),
    onError: (client, err) => log.debug({ err, client: client?.id }, "a connection has failed"),
  };
}

/** Returns a function that logs refused messages, and repetitions of the last one on the level debug only. */
function createRefusalLog(log: Logger) {
  let refused = 0;
  let last = "";
  return (err: unknown, { name }: Identity, topic: string): void => {
    refused += 1;
    const key = `${name} ${topic}`;
    const level = key === last ? "debug" : "warn";
    last = key;
    log[level]({ err, who: name, topic, refused }, "a message was refused; closing the connection");
  };
}
