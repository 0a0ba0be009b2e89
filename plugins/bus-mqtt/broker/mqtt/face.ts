import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Clock, Logger, MessageBus } from "../../../../core/index.js";
import { ownerOf, topicMatches } from "../../../kit/topics.js";
import type { Guard } from "../guard.js";
import { createDesk } from "./desk.js";
import { limitFrames } from "./frames.js";
import {
  CONNECT_TIMEOUT_MS,
  KEEP_ALIVE_MS,
  MAX_CONNECTIONS,
  MAX_PACKET_BYTES,
  MAX_PUBLISH_BYTES,
} from "./limits.js";
import { createProtocol } from "./protocol.js";
import { createSessions } from "./sessions.js";
import { createMqttStore, type MqttDatabase } from "./store.js";
import { createVisitors } from "./visitors.js";

export type { MqttDatabase } from "./store.js";
export { createMqttTables } from "./tables.js";

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
  /** Runs that are over, or were revoked: their connections are ended. */
  endRuns(isOver: (runId: string) => boolean): void;
  /**
   * What the daemon drops on the bus it drops here too: messages retained under topics that fit the filter, and
   * with `agents/ID/#` the sessions of that agent, whose id may be another's next; agents that read topics of it
   * are to connect again.
   */
  drop(filter: string): Promise<void>;
  /** Ends all connections. Sessions and groups stay. */
  close(): Promise<void>;
}

export function createMqttFace({ bus, database, guard, clock, log }: MqttFaceOptions): MqttFace {
  const store = createMqttStore(database);
  const visitors = createVisitors();
  const isInUse = (session: string) => visitors.userOf(session) !== undefined;
  const sessions = createSessions({ bus, store, clock, isInUse });
  let isClosing = false;
  const isClosed = () => isClosing;
  const desk = createDesk({ bus, guard, store, sessions, visitors, log, isClosing: isClosed });
  const protocol = createProtocol(desk);
  const listening = protocol.listen();

  async function handle(socket: Duplex): Promise<void> {
    const visitor = visitors.add(socket);
    const cancel = clock.after(CONNECT_TIMEOUT_MS, () => {
      if (!visitor.connection) void visitors.end(visitor);
    });
    socket.on("error", () => {}); // its end is told by "close"
    socket.once("close", () => {
      cancel();
      void visitors.end(visitor);
    });
    await listening;
    limitFrames(socket, { publishBytes: MAX_PUBLISH_BYTES, bytes: MAX_PACKET_BYTES }, () => {
      log.debug({ who: visitor.connection?.who.name }, "a packet is too large: its connection is ended");
      void visitors.end(visitor);
    });
    if (visitor.ended === undefined) visitors.know(protocol.handle(socket), visitor);
  }

  async function dropRetained(filter: string): Promise<void> {
    const topics = store.tables.retainedTopics().filter((topic) => topicMatches(filter, topic));
    if (topics.length === 0) return;
    await store.write((tables) => {
      for (const topic of topics) tables.forgetRetained(topic);
    });
  }

  return {
    accept(socket) {
      if (socket instanceof Socket) {
        // Small packets go out at once, and a peer that has vanished is noticed.
        socket.setNoDelay(true);
        socket.setKeepAlive(true, KEEP_ALIVE_MS);
      }
      if (isClosing || visitors.all.size >= MAX_CONNECTIONS) socket.destroy();
      else handle(socket).catch((err: unknown) => log.error({ err }, "a connection could not be handled"));
    },
    endRuns(isOver) {
      for (const visitor of visitors.all) {
        const runId = visitor.connection?.who.runId;
        if (runId !== undefined && isOver(runId)) void visitors.end(visitor);
      }
    },
    async drop(filter) {
      const agent = ownerOf(filter);
      if (agent !== undefined && filter === `agents/${agent}/#`) {
        const owner = `agent:${agent}`;
        // Who reads its topics is asked again: they may be somebody else's next.
        const readers = [...visitors.all].filter(
          ({ connection }) => connection?.who.agentId !== undefined && connection.readsOf(agent),
        );
        await Promise.all([...visitors.named(owner), ...readers].map(visitors.end));
        await sessions.forgetAllOf(owner);
      }
      await dropRetained(filter);
    },
    async close() {
      isClosing = true;
      await listening;
      await Promise.all([...visitors.all].map(visitors.end));
      await new Promise<void>((resolve) => protocol.close(resolve));
    },
  };
}
