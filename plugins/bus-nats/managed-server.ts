import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { type NodeConnectionOptions, nkeyAuthenticator, nkeys } from "@nats-io/transport-node";
import { isLive, OpenStarryError, type PluginContext, type ServiceSpec } from "../../core/index.js";
import { createManagedServer, findProgram } from "../kit/managed-server.js";
import { createPortMemory } from "../kit/port-memory.js";
import { privateFolder, writePrivateFile } from "../kit/private-files.js";
import { readOrCreateSecret } from "../kit/secret-file.js";
import type { Options } from "./options.js";
import { ownerOfPort } from "./port-owner.js";

export const SERVICE = "nats";
const HOST = "127.0.0.1";

/**
 * Runs a nats-server as the service `svc:nats`, in a folder of its own in the home. Clients authenticate with a key by
 * a signature and never send it: the server's config holds the public half, so that a program that listens on the
 * port while the server is down learns nothing.
 */
export function createNatsServer(ctx: PluginContext, { program, eager }: Options) {
  const folder = join(ctx.dataDir, "nats");
  const memory = createPortMemory(join(folder, "port.json"));

  const seed = () => readOrCreateSecret(join(folder, "key"), newSeed);

  /** Returns the remembered port, or a new one when another program has taken it. */
  async function choosePort(): Promise<number> {
    const remembered = memory.read();
    const state = ctx.services.get(SERVICE)?.state;
    if (remembered > 0 && state !== undefined && isLive(state)) return remembered;
    const port = (await tryPort(remembered)) ?? (await tryPort(0)) ?? 0;
    if (port !== remembered) memory.write(port);
    if (port === memory.read()) return port;
    // Clients would look for the server at another port.
    throw new OpenStarryError("home_unusable", {
      detail: `cannot store the port of svc:${SERVICE} in ${folder}`,
      hint: "check that the folder can be written and that the disk is not full",
    });
  }

  async function template(): Promise<ServiceSpec["template"]> {
    const command = findProgram({
      name: "nats-server",
      path: program,
      install: "apt install nats-server",
      plugin: "bus-nats",
    });
    privateFolder(folder);
    const port = await choosePort();
    const config = join(folder, "nats-server.conf");
    const publicKey = nkeys.fromSeed(Buffer.from(seed())).getPublicKey();
    writePrivateFile(config, configText({ publicKey, data: join(folder, "data") }));
    return {
      description: "the message bus: NATS with JetStream",
      command,
      args: ["--config", config, "--addr", HOST, "--port", String(port)],
      cwd: folder,
      // It exits with 1 on SIGTERM.
      success_exit_codes: [0, 1],
      restart: { policy: "always", max_restarts: 20, backoff: { min: "200ms", max: "10s" } },
      readiness: { type: "tcp", host: HOST, port, interval: "100ms" },
    };
  }

  return {
    ...createManagedServer(ctx, { name: SERVICE, eager, template }),
    address: `svc:${SERVICE}`,
    async connection(): Promise<NodeConnectionOptions> {
      const port = memory.read();
      const owner = ownerOfPort(port);
      // While the server is down, any user of this machine could take its port and receive what is published.
      if (owner !== undefined && owner !== process.geteuid?.()) {
        throw new Error(`another user (uid ${owner}) listens on port ${port}`);
      }
      return {
        servers: `${HOST}:${port}`,
        authenticator: nkeyAuthenticator(Buffer.from(seed())),
      };
    },
  };
}

function newSeed(): string {
  return Buffer.from(nkeys.createUser().getSeed()).toString();
}

/** Returns the port if it is free, or any free one for 0; `undefined` when it is taken. */
async function tryPort(wanted: number): Promise<number | undefined> {
  const server = createServer();
  try {
    server.listen(wanted, HOST);
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, "close");
    return port;
  } catch {
    // Taken by another program.
    return undefined;
  }
}

/** Returns the config file. The address is an argument instead, so that changing it changes the service. */
function configText({ publicKey, data }: { publicKey: string; data: string }): string {
  const lines = [
    "# Written by openstarry-daemon (bus-nats).",
    // A message of 1 MiB with its headers.
    "max_payload: 2MB",
    `authorization { users: [ { nkey: ${publicKey} } ] }`,
    `jetstream { store_dir: ${JSON.stringify(data)} }`,
  ];
  return `${lines.join("\n")}\n`;
}
