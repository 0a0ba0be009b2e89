import type { Duplex } from "node:stream";
import type { Client } from "aedes";
import type { ActiveSession } from "./active-session.js";

/** The connection of one client. */
export interface ClientConnection {
  readonly socket: Duplex;
  /** Set when the client's CONNECT was accepted. */
  session?: ActiveSession;
  /** The will of its CONNECT, the same object that aedes publishes later. */
  will?: unknown;
  /** Set when the connection is closed; settles when nothing is done for it any more. */
  closed?: Promise<void>;
}

/** All connections, with the ways to find one. */
export interface Connections {
  readonly all: ReadonlySet<ClientConnection>;
  add(socket: Duplex): ClientConnection;
  /** Records which aedes client handles the socket of a connection. */
  setClient(connection: ClientConnection, client: Client): void;
  of(client: Client): ClientConnection | undefined;
  /** Returns the session of a client. Throws when it is not connected any more, or not accepted yet. */
  sessionOf(client: Client): ActiveSession;
  /** Returns the connection that uses a session. */
  bySessionId(sessionId: string): ClientConnection | undefined;
  /** Makes the connection the one that uses this session. Throws when it is closed. */
  attachSession(connection: ClientConnection, session: ActiveSession): void;
  /** Returns the accepted connections of an identity, by its name. */
  ofIdentity(name: string): ClientConnection[];
  close(connection: ClientConnection): Promise<void>;
}

export function createConnections(): Connections {
  const all = new Set<ClientConnection>();
  const byClient = new WeakMap<Client, ClientConnection>();
  const bySessionId = new Map<string, ClientConnection>();

  async function remove(connection: ClientConnection): Promise<void> {
    const { session } = connection;
    await session?.end();
    if (session && bySessionId.get(session.id) === connection) bySessionId.delete(session.id);
    all.delete(connection);
  }

  return {
    all,
    add(socket) {
      const connection: ClientConnection = { socket };
      all.add(connection);
      return connection;
    },
    setClient: (connection, client) => void byClient.set(client, connection),
    of: (client) => byClient.get(client),
    sessionOf(client) {
      const connection = byClient.get(client);
      if (connection?.session === undefined || connection.closed !== undefined)
        throw new Error("the client is not connected");
      return connection.session;
    },
    bySessionId: (sessionId) => bySessionId.get(sessionId),
    attachSession(connection, session) {
      if (connection.closed !== undefined) throw new Error("the client has disconnected");
      connection.session = session;
      bySessionId.set(session.id, connection);
    },
    ofIdentity: (name) => [...all].filter(({ session }) => session?.who.name === name),
    close(connection) {
      connection.socket.destroy();
      connection.closed ??= remove(connection);
      return connection.closed;
    },
  };
}
