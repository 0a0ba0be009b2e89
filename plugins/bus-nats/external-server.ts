import { readFile } from "node:fs/promises";
import { credsAuthenticator, type NodeConnectionOptions } from "@nats-io/transport-node";
import { type Options, parseServer } from "./options.js";

/** A server that somebody else runs. */
export function createExternalServer({ url = "", token_file, creds_file }: Options) {
  const server = parseServer(url);
  if (!server) throw new Error("the options were checked");
  const { host, isTls, user, password } = server;
  return {
    where: host,
    /** Files are read for every attempt: what is in them may change. */
    async connection(): Promise<NodeConnectionOptions> {
      const to = { servers: host, ...(isTls ? { tls: {} } : {}) };
      if (token_file !== undefined) return { ...to, token: (await read(token_file)).toString().trim() };
      if (creds_file !== undefined)
        return { ...to, authenticator: credsAuthenticator(await read(creds_file)) };
      if (user === undefined) return to;
      return password === undefined ? { ...to, token: user } : { ...to, user, pass: password };
    },
  };
}

async function read(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new Error(`${path} cannot be read (${(cause as NodeJS.ErrnoException).code})`, { cause });
  }
}
