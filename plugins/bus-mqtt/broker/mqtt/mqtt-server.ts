import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Clock, Logger, MessageBus } from "../../../../core/index.js";
import { ownerOf, topicMatches } from "../../../kit/topics.js";
import type { Authorizer } from "../authorizer.js";
import { createConnections } from "./connections.js";
import {
  CONNECT_TIMEOUT_MS,
  KEEP_ALIVE_MS,
  MAX_CONNECTIONS,
  MAX_PACKET_BYTES,
  MAX_PUBLISH_BYTES,
} from "./limits.js";
import { createPacketHandlers } from "./packet-handlers.js";
import { limitPacketSize } from "./packet-size-limit.js";
import { createPersistentSessions } from "./persistent-sessions.js";
import { createProtocol } from "./protocol.js";
import { createMqttStore, type MqttDatabase } from "./store.js";

export type { MqttDatabase } from "./store.js";
export { createMqttTables } from "./tables.js";

export interface MqttServerOptions {
  /** The bus that stores and delivers the messages. */
  bus: MessageBus;
  /** The bus's file, opened with `createMqttTables`. */
  database: MqttDatabase;
  authorizer: Authorizer;
  clock: Clock;
  log: Logger;
}

/** Serves MQTT 3.1.1 (docs.oasis-open.org/mqtt/mqtt/v3.1.1) on top of a message bus. */
export interface MqttServer {
  /** Takes over the socket of a client that has connected. */
  accept(socket: Duplex): void;
  /** Closes the connections of runs that are over, or whose tokens were revoked. */
  endRuns(isOver: (runId: string) => boolean): void;
  /**
   * Deletes the retained messages whose topics match the filter, as the daemon drops them on the bus. For
   * `agents/ID/#`, which the daemon drops when it deletes an agent, also deletes the agent's sessions, and closes the
   * connections of agents that read its topics: they must be authorized again, since another agent may get the id.
   */
  drop(filter: string): Promise<void>;
  /** Closes all connections. Persistent sessions and consumer groups stay. */
  close(): Promise<void>;
}

export function createMqttServer({ bus, database, authorizer, clock, log }: MqttServerOptions): MqttServer {
  const store = createMqttStore(database);
  const connections = createConnections();
  const isInUse = (sessionId: string) => connections.bySessionId(sessionId) !== undefined;
  const sessions = createPersistentSessions({ bus, store, clock, isInUse });
  let isClosing = false;
  const protocol = createProtocol(
    createPacketHandlers({
      ...{ bus, authorizer, store, sessions, connections, log },
      isClosing: () => isClosing,
    }),
  );
  const listening = protocol.listen();

  async function handle(socket: Duplex): Promise<void> {
    const connection = connections.add(socket);
    const cancel = clock.after(CONNECT_TIMEOUT_MS, () => {
      if (!connection.session) void connections.close(connection);
    });
    socket.on("error", () => {}); // "close" follows
    socket.once("close", () => {
      cancel();
      void connections.close(connection);
    });
    await listening;
    limitPacketSize(socket, { publishBytes: MAX_PUBLISH_BYTES, bytes: MAX_PACKET_BYTES }, () => {
      log.debug({ who: connection.session?.who.name }, "a packet is too large; closing the connection");
      void connections.close(connection);
    });
    if (connection.closed === undefined) connections.setClient(connection, protocol.handle(socket));
  }

  async function dropRetained(filter: string): Promise<void> {
    const topics = store.tables.retainedTopics().filter((topic) => topicMatches(filter, topic));
    if (topics.length === 0) return;
    await store.write((tables) => {
      for (const topic of topics) tables.removeRetained(topic);
    });
  }

  return {
    accept(socket) {
      if (socket instanceof Socket) {
        // Small packets are sent at once, and a peer that has vanished is detected.
        socket.setNoDelay(true);
        socket.setKeepAlive(true, KEEP_ALIVE_MS);
      }
      if (isClosing || connections.all.size >= MAX_CONNECTIONS) socket.destroy();
      else handle(socket).catch((err: unknown) => log.error({ err }, "cannot handle a connection"));
    },
    endRuns(isOver) {
      for (const connection of connections.all) {
        const runId = connection.session?.who.runId;
        if (runId !== undefined && isOver(runId)) void connections.close(connection);
      }
    },
    async drop(filter) {
      const agent = ownerOf(filter);
      if (agent !== undefined && filter === `agents/${agent}/#`) {
        const owner = `agent:${agent}`;
        const readers = [...connections.all].filter(
          ({ session }) => session?.who.agentId !== undefined && session.readsTopicsOf(agent),
        );
        await Promise.all([...connections.ofIdentity(owner), ...readers].map(connections.close));
        await sessions.removeAllOf(owner);
      }
      await dropRetained(filter);
    },
    async close() {
      isClosing = true;
      await listening;
      await Promise.all([...connections.all].map(connections.close));
      await new Promise<void>((resolve) => protocol.close(resolve));
    },
  };
}
