import { randomUUID } from "node:crypto";
import type { ConnectPacket } from "aedes";
import type { Logger, MessageBus } from "../../../../core/index.js";
import type { Identity } from "../../ipc/identity.js";
import type { Authorizer } from "../authorizer.js";
import { createActiveSession } from "./active-session.js";
import type { ClientConnection, Connections } from "./connections.js";
import { MAX_CLIENT_ID_BYTES, MAX_CONNECTIONS_PER_AGENT } from "./limits.js";
import { createOutbox } from "./outbox.js";
import type { PersistentSessions } from "./persistent-sessions.js";
import { CONNACK, type ReturnCode } from "./protocol.js";
import { createPublisher, type Publisher } from "./publisher.js";
import type { MqttStore } from "./store.js";

export interface ConnectHandlerOptions {
  bus: MessageBus;
  authorizer: Authorizer;
  store: MqttStore;
  sessions: PersistentSessions;
  connections: Connections;
  log: Logger;
}

/** A client whose CONNECT was accepted. */
interface AcceptedClient {
  who: Identity;
  publisher: Publisher;
  packet: ConnectPacket;
}

/** Returns the handler of CONNECT: it authenticates the client and attaches the session of its client id. */
export function createConnectHandler(options: ConnectHandlerOptions) {
  const { bus, authorizer, store, sessions, connections, log } = options;

  async function attachSession(
    connection: ClientConnection,
    { who, publisher, packet }: AcceptedClient,
  ): Promise<ReturnCode> {
    const { clientId: id, clean: isClean = true } = packet;
    // A connection that uses the session is closed first, so that no message is sent to both.
    for (let other = connections.bySessionId(id); other; other = connections.bySessionId(id)) {
      await connections.close(other);
    }
    if (who.agentId !== undefined && connections.ofIdentity(who.name).length >= MAX_CONNECTIONS_PER_AGENT)
      return CONNACK.unavailable;
    const session = createActiveSession({
      ...{ who, id, isClean, bus, authorizer, store, sessions, publisher },
      outbox: createOutbox(connection.socket),
      abort(err) {
        log.warn({ err, session: id }, "cannot read from the bus; closing the client's connection");
        void connections.close(connection);
      },
    });
    connections.attachSession(connection, session);
    // Without the time of last use, the session is only more likely to be the one that makes room for another.
    if (!isClean)
      sessions.touch(id).catch((err) => log.debug({ err, session: id }, "session timestamp not saved"));
    return CONNACK.accepted;
  }

  return async (connection: ClientConnection, packet: ConnectPacket): Promise<ReturnCode> => {
    const token = packet.password?.toString();
    const who = token ? await authorizer.identify(token) : undefined;
    if (!who) return CONNACK.badCredentials;
    if (!isValidClientId(packet)) return CONNACK.badClientId;
    const publisher = createPublisher({ who, bus, store, authorizer });
    if (packet.will && !(await resolves(publisher.assertAllowed(packet.will.topic))))
      return CONNACK.forbidden;
    connection.will = packet.will;
    // With the identity in front, no client can take over the session of another identity.
    packet.clientId = `${who.name}/${packet.clientId || randomUUID()}`;
    return attachSession(connection, { who, publisher, packet });
  };
}

async function resolves(promise: Promise<void>): Promise<boolean> {
  return promise.then(
    () => true,
    () => false,
  );
}

/** Checks the client id. Only a clean session may do without one (MQTT 3.1.1, 3.1.3.1). */
function isValidClientId({ clientId, clean }: ConnectPacket): boolean {
  if (!clientId) return clean !== false;
  return Buffer.byteLength(clientId) <= MAX_CLIENT_ID_BYTES && !/[\p{Cc}\p{Cs}]/u.test(clientId);
}
