import { lstatSync } from "node:fs";
import type { Server } from "node:http";
import { Server as NetServer } from "node:net";
import type { Clock, Logger } from "../../core/index.js";
import { listenUnix } from "./listen.js";

export interface KeptSocketOptions {
  path: string;
  /** A listening descriptor of the predecessor. */
  inherited: number | undefined;
  createServer: () => Server;
  /** Called with every server that comes to listen there. */
  listens: (server: Server) => void;
  clock: Clock;
  log: Logger;
}

export interface KeptSocket {
  readonly listening: boolean;
  /** Looks after it no more. */
  release(): void;
  /** Removes the socket's name. */
  remove(): void;
}

/** How often it is looked whether the socket still has its name. */
const LOOK_MS = 2_000;

/** Listens at a path, and anew when somebody removed the socket: a server cannot be reached without its name. */
export async function keepSocket(options: KeptSocketOptions): Promise<KeptSocket> {
  const { path, clock, log, createServer, listens } = options;
  let server = createServer();
  let remove = await listenUnix(server, { path, inherited: options.inherited });
  let cancel = () => {};
  let released = false;
  listens(server);

  async function restore(): Promise<void> {
    if (lstatSync(path, { throwIfNoEntry: false })) return;
    const next = createServer();
    remove = await listenUnix(next, { path, inherited: undefined });
    listens(next);
    // Accepts no more; who is connected stays so, which an HTTP server's own close would not leave idle.
    NetServer.prototype.close.call(server);
    server = next;
    log.warn({ path }, "the socket was removed by somebody; it is there again");
  }

  function lookLater(): void {
    cancel = clock.after(LOOK_MS, () => {
      // A folder that is gone or full: it may come back.
      restore()
        .catch((error) => log.debug({ err: error }, "the socket cannot be made again yet"))
        .finally(() => released || lookLater());
    });
  }
  lookLater();

  return {
    get listening() {
      return server.listening;
    },
    release() {
      released = true;
      cancel();
    },
    remove: () => remove(),
  };
}
