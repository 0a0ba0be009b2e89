import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** The connections of one server. */
export interface Connections {
  /** A request is under way on its connection. Called by itself for all but `Expect: 100-continue`. */
  begin(request: IncomingMessage, response: ServerResponse): void;
  /**
   * Closes those that no request is under way on, and the others after their answer. One that has not
   * asked anything yet is given `freshMs` to do so: its client cannot know that nobody listens any more.
   */
  drain(freshMs: number): void;
}

/**
 * Keeps at most `max` connections. One more closes the one that has been idle longest, so that sockets
 * opened and left silent cannot keep a good client out; only when every connection is at work the new
 * one is closed.
 */
export function limitConnections(server: Server, max: number): Connections {
  const open = new Set<Socket>();
  /** How many requests are under way on it: more than one when they are pipelined. */
  const busy = new Map<Socket, number>();
  /** In the order in which they became idle. */
  const idle = new Set<Socket>();
  /** Accepted, and nothing asked yet. */
  const fresh = new Set<Socket>();
  let draining = false;

  const begin = ({ socket }: IncomingMessage, response: ServerResponse) => {
    idle.delete(socket);
    fresh.delete(socket);
    busy.set(socket, (busy.get(socket) ?? 0) + 1);
    response.once("close", () => {
      const left = (busy.get(socket) ?? 1) - 1;
      busy.set(socket, left);
      if (left > 0) return;
      busy.delete(socket);
      if (draining) socket.destroySoon();
      else if (open.has(socket)) idle.add(socket);
    });
  };
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    idle.add(socket);
    fresh.add(socket);
    socket.once("close", () => {
      open.delete(socket);
      idle.delete(socket);
      fresh.delete(socket);
    });
    const [longestIdle] = idle;
    if (open.size > max) longestIdle?.destroy();
  });
  server.on("request", begin);
  return {
    begin,
    drain(freshMs) {
      draining = true;
      for (const socket of idle) if (freshMs === 0 || !fresh.has(socket)) socket.destroy();
      if (fresh.size === 0) return;
      const closeFresh = () => {
        for (const socket of fresh) socket.destroy();
      };
      setTimeout(closeFresh, freshMs).unref();
    },
  };
}
