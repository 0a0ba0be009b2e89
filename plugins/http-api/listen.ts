import { randomBytes } from "node:crypto";
import { chmodSync, closeSync, lstatSync, renameSync, unlinkSync } from "node:fs";
import type { Server } from "node:http";
import type { AddressInfo, ListenOptions } from "node:net";
import { dirname, join } from "node:path";
import { OpenStarryError } from "../../core/index.js";
import type { PortMemory } from "../kit/port-memory.js";
import { assertReplaceable } from "../kit/socket-path.js";

export interface TcpPlace {
  host: string;
  /** 0: any, the remembered one first. */
  port: number;
  /** A listening descriptor of the predecessor. */
  inherited: number | undefined;
  memory: PortMemory;
}

/** Answers the port. Rejects with `port_in_use`, or `config_invalid` for an address that is not ours. */
export async function listenTcp(server: Server, place: TcpPlace): Promise<number> {
  const { host, port, memory } = place;
  if (place.inherited !== undefined && (await takeOver(server, place))) return portOf(server);
  const remembered = port === 0 ? memory.read() : 0;
  try {
    await listening(server, { host, port: port || remembered });
  } catch (error) {
    if (remembered === 0 || (error as NodeJS.ErrnoException).code !== "EADDRINUSE") {
      throw tcpError(error as NodeJS.ErrnoException, place);
    }
    await listening(server, { host, port: 0 });
  }
  if (port === 0 && portOf(server) !== remembered) memory.write(portOf(server));
  return portOf(server);
}

/** Listens on the inherited descriptor, unless the config has come to ask for another place. */
async function takeOver(server: Server, { host, port, inherited }: TcpPlace): Promise<boolean> {
  await listening(server, { fd: inherited });
  const address = server.address() as AddressInfo | null;
  if (address?.address === host && (port === 0 || address.port === port)) return true;
  await new Promise((resolve) => server.close(resolve));
  return false;
}

export interface UnixPlace {
  path: string;
  inherited: number | undefined;
}

/** Answers a function that removes the socket's name, as long as it is still the one made here. */
export async function listenUnix(server: Server, { path, inherited }: UnixPlace): Promise<() => void> {
  if (inherited !== undefined && lstatSync(path, { throwIfNoEntry: false })?.isSocket()) {
    await listening(server, { fd: inherited });
  } else {
    if (inherited !== undefined) closeSync(inherited);
    await assertReplaceable(path);
    await bindUnix(server, path);
  }
  const made = lstatSync(path).ino;
  return () => {
    if (lstatSync(path, { throwIfNoEntry: false })?.ino === made) unlinkSync(path);
  };
}

/**
 * Under another name first, then renamed: nobody can connect before the mode is set, the socket of a
 * dead daemon is replaced in one step, and Node, which removes the name that it bound at every close,
 * does not remove the one that a successor still uses.
 */
async function bindUnix(server: Server, path: string): Promise<void> {
  // As long as the final name at most: the path's length was checked for that.
  const beside = join(dirname(path), `.s${randomBytes(4).toString("hex")}`);
  try {
    await listening(server, { path: beside });
    chmodSync(beside, 0o600);
    renameSync(beside, path);
  } catch (cause) {
    throw new OpenStarryError("home_unusable", {
      detail: `cannot listen at ${path} (${(cause as NodeJS.ErrnoException).code})`,
      hint: `see that ${dirname(path)} can be written and is on a file system that takes sockets`,
      cause,
    });
  }
}

function listening(server: Server, options: ListenOptions & { fd?: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(options, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

function tcpError(cause: NodeJS.ErrnoException, { host, port }: TcpPlace): OpenStarryError {
  if (cause.code === "EADDRINUSE") {
    return new OpenStarryError("port_in_use", {
      detail: `port ${port} of ${host} is taken by another process`,
      hint: "choose another with --port or the option port of http-api; 0 takes any that is free",
      cause,
    });
  }
  return new OpenStarryError("config_invalid", {
    detail: `http-api cannot listen at ${host}, port ${port} (${cause.code})`,
    hint: "give the options host and port of http-api an address of this machine and a port over 1023",
    cause,
  });
}

/** The descriptor that a server listens on, for a successor. */
export function listeningFd(server: Server): number | undefined {
  return (server as unknown as { _handle?: { fd?: number } | null })._handle?.fd;
}
