import { z } from "zod";
import { limitFields } from "../kit/bus/limits.js";

const filePath = (description: string) =>
  z.string().startsWith("/", "expected an absolute path").optional().meta({ description });

/** The options of `bus-nats`: either a server that the plugin runs (`managed`), or one that runs already (`url`). */
export const optionsSchema = z
  .strictObject({
    managed: z
      .boolean()
      .default(false)
      .meta({ description: "Run a nats-server that is installed on this machine." }),
    program: filePath("Path of nats-server, if it is not in PATH."),
    eager: z
      .boolean()
      .default(false)
      .meta({ description: "Start the server with the daemon instead of on first use." }),
    url: z.string().optional().meta({
      description:
        "A running server: nats://host:4222, optionally with user:password@ or token@; tls:// for TLS.",
    }),
    token_file: filePath("File with the token."),
    creds_file: filePath("Credentials file (JWT and seed)."),
    prefix: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,32}$/, 'expected 1 to 32 letters, digits, "-" or "_"')
      .default("openstarry")
      .meta({ description: "Name of the stream and first token of all subjects." }),
    ...limitFields({ messages: 100_000, mib: 256, leastMib: 4 }),
  })
  .superRefine((it, context) => {
    const issue = (path: string, message: string) =>
      context.addIssue({ code: "custom", path: [path], message });
    if (it.managed === (it.url !== undefined)) {
      const given = it.managed ? "both were given" : "neither was given";
      issue("url", `expected either "managed": true or the "url" of a running server; ${given}`);
    }
    for (const name of ["program", "eager"] as const) {
      if (it[name] && !it.managed) issue(name, 'applies to a managed server only: set "managed": true');
    }
    for (const name of ["token_file", "creds_file"] as const) {
      if (it[name] !== undefined && it.managed)
        issue(name, 'applies to "url" only; a managed server has its own key');
    }
    if (it.url !== undefined) {
      const server = parseServer(it.url);
      // The message does not repeat the value, which may hold a password.
      if (!server) issue("url", "expected nats://host:port or tls://host:port, without a path");
      const credentials = [server?.user, it.token_file, it.creds_file].filter((one) => one !== undefined);
      if (credentials.length > 1)
        issue("url", 'expected credentials in one place only: "url", "token_file" or "creds_file"');
    }
  });

export type Options = z.output<typeof optionsSchema>;

export interface ServerAddress {
  /** `host:port`. */
  host: string;
  isTls: boolean;
  /** A user name with a password, or a token alone. */
  user: string | undefined;
  password: string | undefined;
}

/** Parses the address of a NATS server; returns `undefined` when it is not one. */
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
    // Not a URL, or with a bad percent encoding.
    return undefined;
  }
}
