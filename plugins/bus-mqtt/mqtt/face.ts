import { randomUUID } from "node:crypto";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Client, ConnectPacket } from "aedes";
import type { Clock, Logger, MessageBus } from "../../../core/index.js";
import { ownerOf, topicMatches } from "../../_shared/topics.js";
import { type Connection, createConnection } from "./connection.js";
import { limitFrames } from "./frames.js";
import type { Guard, Identity } from "./guard.js";
import {
  CONNECT_TIMEOUT_MS,
  MAX_CLIENT_ID_BYTES,
  MAX_CONNECT_BYTES,
  MAX_CONNECTIONS,
  MAX_CONNECTIONS_OF_ONE,
  MAX_PACKET_BYTES,
  MAX_UNRELEASED_SESSIONS,
} from "./limits.js";
import { createOutbox } from "./outbox.js";
import { CONNACK, createProtocol, type Desk, type ReturnCode } from "./protocol.js";
import { createPublisher, type Incoming } from "./publisher.js";
import { createSessions } from "./sessions.js";
import { createMqttStore, type MqttDatabase } from "./store.js";
import { createUnreleased } from "./unreleased.js";

export type { Guard, Identity } from "./guard.js";
export type { MqttDatabase } from "./store.js";
export { createMqttTables, type MqttTables } from "./tables.js";

export interface MqttFaceOptions {
  /** Where all messages are: the broker's own engine. */
  bus: MessageBus;
  /** Of the engine's file, with `createMqttTables` in its `prepare`. */
  database: MqttDatabase;
  guard: Guard;
  clock: Clock;
  log: Logger;
}

/** MQTT 3.1.1 (docs.oasis-open.org/mqtt/mqtt/v3.1.1) over a message bus. */
export interface MqttFace {
  /** A client has connected. */
  accept(socket: Duplex): void;
  /** A run is over or was revoked: its connections are ended. */
  endRun(runId: string): void;
  /**
   * What the daemon drops on the bus it drops here too: messages retained under topics that fit the filter, and
   * with `agents/ID/#` the sessions of that agent, whose id may be another's next.
   */
  drop(filter: string): Promise<void>;
  /** Ends all connections. Sessions and groups stay. */
  close(): Promise<void>;
}

/** A socket, and what is known of who is at its other end. */
interface Visitor {
  readonly socket: Duplex;
  connection?: Connection;
  will?: unknown;
  /** Settles when nothing is done for it any more. */
  ended?: Promise<void>;
}

export function createMqttFace({ bus, database, guard, clock, log }: MqttFaceOptions): MqttFace {
  const store = createMqttStore(database);
  const visitors = new Set<Visitor>();
  const byClient = new WeakMap<Client, Visitor>();
  /** Who uses which session. */
  const inUse = new Map<string, Visitor>();
  const sessions = createSessions({ bus, store, clock, isInUse: (session) => inUse.has(session) });
  const unreleased = createUnreleased(MAX_UNRELEASED_SESSIONS);
  let refused = 0;
  let isClosing = false;

  const connections = () => [...visitors].flatMap(({ connection }) => connection ?? []);
  const visitorOf = (client: Client): Visitor => {
    const visitor = byClient.get(client);
    if (visitor === undefined || visitor.ended !== undefined) throw new Error("the connection is over");
    return visitor;
  };
  const connectionOf = (client: Client): Connection => {
    const { connection } = visitorOf(client);
    if (!connection) throw new Error("it has not said who it is");
    return connection;
  };

  function end(visitor: Visitor): Promise<void> {
    visitor.socket.destroy();
    visitor.ended ??= (async () => {
      const { connection } = visitor;
      await connection?.end();
      if (connection && inUse.get(connection.session) === visitor) inUse.delete(connection.session);
      visitors.delete(visitor);
    })();
    return visitor.ended;
  }

  async function greet(client: Client, packet: ConnectPacket): Promise<ReturnCode> {
    const visitor = visitorOf(client);
    const token = packet.password?.toString();
    const who = token ? await guard.identify(token) : undefined;
    if (!who) return CONNACK.badCredentials;
    if (!isClientId(packet)) return CONNACK.badClientId;
    const sameOnes = connections().filter((it) => it.who.name === who.name);
    if (sameOnes.length >= MAX_CONNECTIONS_OF_ONE) return CONNACK.unavailable;
    const publisher = createPublisher({ who, bus, store, guard });
    if (packet.will && !(await isAllowed(publisher.mustBeAllowed(packet.will.topic))))
      return CONNACK.forbidden;
    visitor.will = packet.will;
    // So that nobody can take over another's session.
    packet.clientId = `${who.name}/${packet.clientId || randomUUID()}`;
    await seat(visitor, client, { who, packet, publisher });
    return CONNACK.accepted;
  }

  /** Whoever uses the session makes room first, so that nothing is sent to both. */
  async function seat(
    visitor: Visitor,
    client: Client,
    of: { who: Identity; packet: ConnectPacket; publisher: Connection["publisher"] },
  ): Promise<void> {
    const { who, packet, publisher } = of;
    const { clientId: session, clean: isClean = true } = packet;
    for (let other = inUse.get(session); other; other = inUse.get(session)) await end(other);
    visitorOf(client);
    inUse.set(session, visitor);
    visitor.connection = createConnection({
      ...{ who, session, isClean, bus, guard, store, sessions, publisher },
      outbox: createOutbox(visitor.socket),
      abort(err) {
        log.warn({ err, session }, "a subscription ended by itself: its client is to connect again");
        void end(visitor);
      },
    });
    if (!isClean) await sessions.touch(session);
  }

  const desk: Desk = {
    greet,
    ready: (client) => byClient.get(client)?.connection?.ready(),
    async renew(client) {
      unreleased.forget(client.id);
      await sessions.forget(client.id);
    },
    subscriptionsOf: (session) =>
      sessions.subscriptions(session).map(({ filter, qos }) => ({ topic: filter, qos })),
    async publish(client, packet) {
      const visitor = byClient.get(client);
      const publisher = visitor?.connection?.publisher;
      if (!publisher) throw new Error("it has not said who it is");
      // Allowed when it connected; the run may be over by now.
      if (packet === visitor.will) return isClosing ? undefined : publish(publisher, packet);
      try {
        // Those of QoS 2 are published when it is known that they are new.
        if (packet.qos === 2) await publisher.mustBeAllowed(packet.topic);
        else await publisher.publish(packet, { isAllowed: false });
      } catch (err) {
        refused += 1;
        const { name } = visitor.connection?.who ?? {};
        log.debug({ err, who: name, topic: packet.topic, refused }, "a message was refused");
        throw err;
      }
    },
    async isPublished(client, { messageId = 0 }) {
      const published = unreleased.find(connectionOf(client).session, messageId);
      await published;
      return published !== undefined;
    },
    async publishOnce(client, packet) {
      const { session, publisher } = connectionOf(client);
      const published = publish(publisher, packet);
      unreleased.add(session, packet.messageId ?? 0, published);
      await published;
    },
    release: (client, packetId) => unreleased.release(client.id, packetId),
    subscribe: (client, { topic, qos }) => connectionOf(client).subscribe(topic, qos === 0 ? 0 : 1),
    subscribed(client, filters) {
      for (const filter of filters) byClient.get(client)?.connection?.start(filter);
    },
    unsubscribe: async (client, filters) => byClient.get(client)?.connection?.unsubscribe(filters),
    acked: (client, packetId) => byClient.get(client)?.connection?.acked(packetId),
    failed(client, err) {
      log.debug({ err, client: client?.id }, "a connection has failed");
    },
  };

  const publish = (publisher: Connection["publisher"], packet: Incoming) =>
    publisher.publish(packet, { isAllowed: true });
  const protocol = createProtocol(desk);
  const listening = protocol.listen();

  async function handle(socket: Duplex): Promise<void> {
    const visitor: Visitor = { socket };
    visitors.add(visitor);
    const cancel = clock.after(CONNECT_TIMEOUT_MS, () => {
      if (!visitor.connection) void end(visitor);
    });
    socket.on("error", () => {}); // its end is told by "close"
    socket.once("close", () => {
      cancel();
      void end(visitor);
    });
    await listening;
    const limits = { firstBytes: MAX_CONNECT_BYTES, bytes: MAX_PACKET_BYTES };
    limitFrames(socket, limits, () => {
      log.debug({ who: visitor.connection?.who.name }, "a packet is too large: its connection is ended");
      void end(visitor);
    });
    if (visitor.ended === undefined) byClient.set(protocol.handle(socket), visitor);
  }

  return {
    accept(socket) {
      if (socket instanceof Socket) {
        // Small packets go out at once, and a peer that has vanished is noticed.
        socket.setNoDelay(true);
        socket.setKeepAlive(true, 60_000);
      }
      if (isClosing || visitors.size >= MAX_CONNECTIONS) socket.destroy();
      else handle(socket).catch((err: unknown) => log.error({ err }, "a connection could not be handled"));
    },
    endRun(runId) {
      for (const visitor of visitors) if (visitor.connection?.who.runId === runId) void end(visitor);
    },
    async drop(filter) {
      const agent = ownerOf(filter);
      if (agent !== undefined && filter === `agents/${agent}/#`) {
        const owner = `agent:${agent}`;
        const theirs = [...visitors].filter(({ connection }) => connection?.who.name === owner);
        await Promise.all(theirs.map(end));
        await sessions.forgetAllOf(owner);
      }
      const topics = store.tables.retainedTopics().filter((topic) => topicMatches(filter, topic));
      if (topics.length === 0) return;
      await store.write((tables) => {
        for (const topic of topics) tables.forgetRetained(topic);
      });
    },
    async close() {
      isClosing = true;
      await listening;
      await Promise.all([...visitors].map(end));
      await new Promise<void>((resolve) => protocol.close(resolve));
    },
  };
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
