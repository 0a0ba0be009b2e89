import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { type NodeConnectionOptions, nkeyAuthenticator, nkeys } from "@nats-io/transport-node";
import { isLive, OpenStarryError, type PluginContext, type ServiceSpec } from "../../core/index.js";
import { createManagedServer, findProgram } from "../kit/managed-server.js";
import { createPortMemory } from "../kit/port-memory.js";
import { privateFolder, writePrivateFile } from "../kit/private-files.js";
import { readOrCreateSecret } from "../kit/secret-file.js";
import { listenerOf } from "./listener.js";
import type { Options } from "./options.js";

export const SERVICE = "nats";
const HOST = "127.0.0.1";

/**
 * A nats-server that this plugin runs as `svc:nats`, in a folder of its own below the home. It lets in who has
 * the key, which is proved by a signature and never sent: the server's config holds the public half, and one
 * who listens at its port while it is down learns nothing.
 */
export function createNatsServer(ctx: PluginContext, { program, eager }: Options) {
  const folder = join(ctx.dataDir, "nats");
  const memory = createPortMemory(join(folder, "port.json"));

  const seed = () => readOrCreateSecret(join(folder, "key"), newSeed);

  /** The one it had, as long as nobody else has it. */
  async function choosePort(): Promise<number> {
    const known = memory.read();
    const state = ctx.services.get(SERVICE)?.state;
    if (known > 0 && state !== undefined && isLive(state)) return known;
    const port = (await tryPort(known)) ?? (await tryPort(0)) ?? 0;
    if (port !== known) memory.write(port);
    if (port === memory.read()) return port;
    // The server would be where nobody looks for it.
    throw new OpenStarryError("home_unusable", {
      detail: `the port of svc:${SERVICE} cannot be kept in ${folder}`,
      hint: "free disk space where that is short",
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
      // It ends with 1 when it is told to end.
      success_exit_codes: [0, 1],
      restart: { policy: "always", max_restarts: 20, backoff: { min: "200ms", max: "10s" } },
      readiness: { type: "tcp", host: HOST, port, interval: "100ms" },
    };
  }

  return {
    ...createManagedServer(ctx, { name: SERVICE, eager, template }),
    where: `svc:${SERVICE}`,
    async connection(): Promise<NodeConnectionOptions> {
      const port = memory.read();
      const owner = listenerOf(port);
      // While the server is down, anybody on this machine can take its port and be told what is published.
      if (owner !== undefined && owner !== process.geteuid?.()) {
        throw new Error(`port ${port} is held by somebody else (uid ${owner})`);
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

/** The port, or any for 0; `undefined` when it is taken. */
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
    // Somebody has it.
    return undefined;
  }
}

/** Addresses are arguments, so that a change of them is a change of the service. */
function configText({ publicKey, data }: { publicKey: string; data: string }): string {
  const lines = [
    "# Written by openstarry-daemon (bus-nats).",
    // A message of 1 MiB, and its headers.
    "max_payload: 2MB",
    `authorization { users: [ { nkey: ${publicKey} } ] }`,
    `jetstream { store_dir: ${JSON.stringify(data)} }`,
  ];
  return `${lines.join("\n")}\n`;
}
