import { type AddressInfo, createServer, type Socket } from "node:net";
import { OpenStarryError } from "../../../../core/index.js";
import type { PortMemory } from "../../../kit/port-memory.js";

/** Clients are programs on this machine. */
const HOST = "127.0.0.1";

export interface ClientServerOptions {
  /** 0: any free port, preferably the remembered one. */
  port: number;
  memory: PortMemory;
  accept: (socket: Socket) => void;
}

export interface ClientServer {
  readonly port: number;
  /** Stops accepting connections. Those that exist stay open. */
  close(): void;
}

/** Listens for MQTT clients. Rejects with `port_in_use`, or with `config_invalid` for a port that is not allowed. */
export async function listenForClients({ port, memory, accept }: ClientServerOptions): Promise<ClientServer> {
  const server = createServer(accept);
  const listen = (at: number) =>
    new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(at, HOST, () => {
        server.off("error", reject);
        resolve();
      });
    });
  const remembered = port === 0 ? memory.read() : 0;
  try {
    await listen(port || remembered);
  } catch (cause) {
    if (port !== 0 || remembered === 0) throw portError(port, cause as NodeJS.ErrnoException);
    // Another program has taken the remembered port.
    await listen(0);
  }
  const { port: actual } = server.address() as AddressInfo;
  if (port === 0 && actual !== remembered) memory.write(actual);
  return { port: actual, close: () => void server.close() };
}

function portError(port: number, cause: NodeJS.ErrnoException): OpenStarryError {
  const isTaken = cause.code === "EADDRINUSE";
  return new OpenStarryError(isTaken ? "port_in_use" : "config_invalid", {
    detail: `cannot listen for MQTT clients on ${HOST}, port ${port} (${cause.code})`,
    hint: "set the option port of bus-mqtt to a free port above 1023, or to 0 for any free port",
    cause,
  });
}
