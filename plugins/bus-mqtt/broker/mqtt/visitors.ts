import type { Duplex } from "node:stream";
import type { Client } from "aedes";
import type { Connection } from "./connection.js";

/** A socket, and what is known of who is at its other end. */
export interface Visitor {
  readonly socket: Duplex;
  /** From when it has said who it is. */
  connection?: Connection;
  /** The will that it came with, as aedes hands it over when its time has come. */
  will?: unknown;
  /** Settles when nothing is done for it any more. Absent while it is there. */
  ended?: Promise<void>;
}

/** Who is there. */
export interface Visitors {
  readonly all: ReadonlySet<Visitor>;
  add(socket: Duplex): Visitor;
  /** What aedes makes of its socket. */
  know(client: Client, visitor: Visitor): void;
  of(client: Client): Visitor | undefined;
  /** Throws when it is not there any more, or has not said who it is. */
  connectionOf(client: Client): Connection;
  /** Who uses a session. */
  userOf(session: string): Visitor | undefined;
  /** From now on it is this one. Nobody else may use it. */
  seat(visitor: Visitor, connection: Connection): void;
  /** Those that this name stands for. */
  named(name: string): Visitor[];
  end(visitor: Visitor): Promise<void>;
}

export function createVisitors(): Visitors {
  const all = new Set<Visitor>();
  const byClient = new WeakMap<Client, Visitor>();
  const bySession = new Map<string, Visitor>();

  async function leave(visitor: Visitor): Promise<void> {
    const { connection } = visitor;
    await connection?.end();
    if (connection && bySession.get(connection.session) === visitor) bySession.delete(connection.session);
    all.delete(visitor);
  }

  return {
    all,
    add(socket) {
      const visitor: Visitor = { socket };
      all.add(visitor);
      return visitor;
    },
    know: (client, visitor) => void byClient.set(client, visitor),
    of: (client) => byClient.get(client),
    connectionOf(client) {
      const visitor = byClient.get(client);
      if (visitor?.connection === undefined || visitor.ended !== undefined)
        throw new Error("it is not there");
      return visitor.connection;
    },
    userOf: (session) => bySession.get(session),
    seat(visitor, connection) {
      if (visitor.ended !== undefined) throw new Error("it has gone again");
      visitor.connection = connection;
      bySession.set(connection.session, visitor);
    },
    named: (name) => [...all].filter(({ connection }) => connection?.who.name === name),
    end(visitor) {
      visitor.socket.destroy();
      visitor.ended ??= leave(visitor);
      return visitor.ended;
    },
  };
}
