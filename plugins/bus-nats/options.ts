import { z } from "zod";
import { limitFields } from "../kit/bus/limits.js";

const filePath = (what: string) =>
  z.string().startsWith("/", "expected an absolute path").optional().meta({ description: what });

/** The options of `bus-nats`: one server, run by the plugin (`managed`) or somebody else's (`url`). */
export const optionsSchema = z
  .strictObject({
    managed: z.boolean().default(false).meta({ description: "Run a nats-server found on this machine." }),
    program: filePath("The file of nats-server, where it is not in PATH."),
    eager: z.boolean().default(false).meta({ description: "Run it at the start, not at the first need." }),
    url: z.string().optional().meta({
      description: "A server that runs: nats://host:4222, with user:password@ or token@; tls:// for TLS.",
    }),
    token_file: filePath("A file that holds the token."),
    creds_file: filePath("A file of credentials (JWT and seed)."),
    prefix: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,32}$/, 'expected 1 to 32 letters, digits, "-" or "_"')
      .default("openstarry")
      .meta({ description: "The stream's name and the first token of all subjects." }),
    ...limitFields({ messages: 100_000, mib: 256, leastMib: 4 }),
  })
  .superRefine((it, context) => {
    const issue = (path: string, message: string) =>
      context.addIssue({ code: "custom", path: [path], message });
    if (it.managed === (it.url !== undefined)) {
      const given = it.managed ? "both were given" : "neither was given";
      issue("url", `expected either "managed": true, or the "url" of a server that runs; ${given}`);
    }
    for (const name of ["program", "eager"] as const) {
      if (it[name] && !it.managed) issue(name, 'it is for a server that is run here: set "managed": true');
    }
    for (const name of ["token_file", "creds_file"] as const) {
      if (it[name] !== undefined && it.managed)
        issue(name, 'it is for "url"; a managed server has keys of its own');
    }
    if (it.url !== undefined) {
      const server = parseServer(it.url);
      // Not with its value: it may hold a password.
      if (!server) issue("url", "expected nats://host:port or tls://host:port, and no path");
      const ways = [server?.user, it.token_file, it.creds_file].filter((way) => way !== undefined);
      if (ways.length > 1)
        issue("url", 'expected one way to be let in: in "url", "token_file" or "creds_file"');
    }
  });

export type Options = z.output<typeof optionsSchema>;

export interface ServerAddress {
  /** `host:port`. */
  host: string;
  isTls: boolean;
  /** With a password, or a token alone. */
  user: string | undefined;
  password: string | undefined;
}

/** `undefined` for what is no address of a NATS server. */
export function parseServer(text: string): ServerAddress | undefined {
  try {
    const { protocol, hostname, port, username, password, pathname, search, hash } = new URL(text);
    if (!["nats:", "tls:"].includes(protocol) || hostname === "") return undefined;
    if (!["", "/"].includes(pathname) || search !== "" || hash !== "") return undefined;
    return {
      host: `${hostname}:${port || 4222}`,
      isTls: protocol === "tls:",
      user: username === "" ? undefined : decodeURIComponent(username),
      password: password === "" ? undefined : decodeURIComponent(password),
    };
  } catch {
    // No URL, or wrongly encoded.
    return undefined;
  }
}
