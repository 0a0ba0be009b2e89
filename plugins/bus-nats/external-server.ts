import { readFile } from "node:fs/promises";
import { credsAuthenticator, type NodeConnectionOptions } from "@nats-io/transport-node";
import { type Options, parseServer } from "./options.js";

/** Returns the address of a server that runs outside the daemon, and how to authenticate there. */
export function createExternalServer({ url = "", token_file, creds_file }: Options) {
  const server = parseServer(url);
  if (!server) throw new Error("the option url was not validated");
  const { host, isTls, user, password } = server;
  return {
    address: host,
    /** Reads the files at each attempt to connect, since their contents may change. */
    async connection(): Promise<NodeConnectionOptions> {
      const options = { servers: host, ...(isTls ? { tls: {} } : {}) };
      if (token_file !== undefined) return { ...options, token: (await read(token_file)).toString().trim() };
      if (creds_file !== undefined)
        return { ...options, authenticator: credsAuthenticator(await read(creds_file)) };
      if (user === undefined) return options;
      return password === undefined ? { ...options, token: user } : { ...options, user, pass: password };
    },
  };
}

async function read(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new Error(`cannot read ${path} (${(cause as NodeJS.ErrnoException).code})`, { cause });
  }
}
