import { type AddressInfo, createServer, type Socket } from "node:net";
import { OpenStarryError } from "../../../../core/index.js";
import type { PortMemory } from "../../../kit/port-memory.js";

/** Clients are programs of this machine. */
const HOST = "127.0.0.1";

export interface ClientServerOptions {
  /** 0: any, the remembered one first. */
  port: number;
  memory: PortMemory;
  accept: (socket: Socket) => void;
}

export interface ClientServer {
  readonly port: number;
  /** Nobody connects any more. Those who are there stay. */
  close(): void;
}

/** Where MQTT clients connect. Rejects with `port_in_use`, or `config_invalid` for a port that cannot be had. */
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
    // Somebody else has it by now.
    await listen(0);
  }
  const { port: taken } = server.address() as AddressInfo;
  if (port === 0 && taken !== remembered) memory.write(taken);
  return { port: taken, close: () => void server.close() };
}

function portError(port: number, cause: NodeJS.ErrnoException): OpenStarryError {
  const isTaken = cause.code === "EADDRINUSE";
  return new OpenStarryError(isTaken ? "port_in_use" : "config_invalid", {
    detail: `MQTT clients cannot be listened for at ${HOST}, port ${port} (${cause.code})`,
    hint: "give the option port of bus-mqtt one that is free and over 1023; 0 takes any that is free",
    cause,
  });
}
