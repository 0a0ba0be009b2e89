import { readFileSync } from "node:fs";
import type { RedisOptions } from "ioredis";
import { z } from "zod";
import { OpenStarryError } from "../../../core/index.js";

/** The option fields of a plugin that uses a Redis server. `checkRedisOptions` validates them together. */
export const redisFields = {
  managed: z.boolean().default(false).meta({
    description: "Run a Redis server as a service of this daemon; redis-server must be installed.",
  }),
  program: z.string().startsWith("/", "expected an absolute path").optional().meta({
    description: "With managed: path of redis-server, if it is not in PATH.",
  }),
  eager: z.boolean().default(false).meta({
    description: "With managed: start the server with the daemon instead of on first use.",
  }),
  url: z.string().optional().meta({
    description:
      "A running server: redis://USER:PASSWORD@HOST:PORT/DB, rediss:// (TLS), or unix:///PATH?db=DB&user=USER.",
  }),
  password_file: z.string().startsWith("/", "expected an absolute path").optional().meta({
    description: "With url: file with the password, instead of a password in the URL.",
  }),
  durable: z.boolean().optional().meta({
    description:
      "With url: whether the server keeps what it has acknowledged. Without it, the server is asked.",
  }),
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9_.:-]{1,64}$/, "expected 1 to 64 of A-Z a-z 0-9 _ . : -")
    .default("openstarry")
    .meta({
      description: "Prefix of all keys on the server. Daemons with the same prefix share their data.",
    }),
};

export type RedisServerOptions = z.output<z.ZodObject<typeof redisFields>>;

/** Checks options that depend on each other: refines an object schema with `redisFields`. */
export function checkRedisOptions(options: RedisServerOptions, context: z.RefinementCtx): void {
  const { managed, program, eager, url, password_file, durable } = options;
  const issue = (path: string, message: string) =>
    context.addIssue({ code: "custom", path: [path], message });
  if (managed && url !== undefined) issue("url", 'cannot be combined with "managed": keep one of the two');
  if (!managed && url === undefined) {
    issue("url", 'expected either "managed": true, or the "url" of a running server');
  }
  if (!managed && program !== undefined) issue("program", 'requires "managed": true');
  if (!managed && eager) issue("eager", 'requires "managed": true');
  if (managed && password_file !== undefined) issue("password_file", 'requires "url"');
  if (managed && durable !== undefined) {
    issue("durable", 'requires "url": a managed server always keeps what it has acknowledged');
  }
  if (url === undefined) return;
  const target = parseUrl(url);
  if (typeof target === "string") issue("url", target);
  else if (password_file !== undefined && target.options.password !== undefined) {
    issue("password_file", "url contains a password as well: keep one of the two");
  }
}

/** The address of a server, with credentials in `options` only. */
export interface RedisTarget {
  address: string;
  options: Pick<RedisOptions, "host" | "port" | "path" | "db" | "username" | "password" | "tls">;
}

/** Returns the server of `url`, with the password of `password_file`. Throws `config_invalid` when that is bad. */
export function targetOf({ url = "", password_file }: RedisServerOptions): RedisTarget {
  const target = parseUrl(url);
  if (typeof target === "string") throw new OpenStarryError("config_invalid", { detail: `url: ${target}` });
  if (password_file === undefined) return target;
  const { address, options } = target;
  return { address, options: { ...options, password: readPassword(password_file) } };
}

const EXPECTED = "expected redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH?db=DB&user=USER";

/** Parses a URL, or returns what is wrong with it, without quoting it: it may hold a password. */
function parseUrl(text: string): RedisTarget | string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !["redis:", "rediss:", "unix:"].includes(url.protocol)) return EXPECTED;
  if (url.hash !== "") return `${EXPECTED}; write a "#" in a password as %23`;
  const isSocket = url.protocol === "unix:";
  const unknown = [...url.searchParams.keys()].filter(
    (name) => !(isSocket && (name === "db" || name === "user")),
  );
  if (unknown.length > 0) return `${EXPECTED}, without other parameters behind the "?"`;
  if (isSocket ? url.hostname !== "" || url.pathname.length < 2 : url.hostname === "") return EXPECTED;
  const db = (isSocket ? url.searchParams.get("db") : url.pathname.slice(1)) || "0";
  if (!/^\d{1,4}$/.test(db)) return `${EXPECTED}, where DB is a number`;
  try {
    const username = url.searchParams.get("user") ?? decodeURIComponent(url.username);
    const password = decodeURIComponent(url.password);
    const host = url.hostname.replace(/^\[|\]$/g, "");
    const path = decodeURIComponent(url.pathname);
    return {
      address: isSocket ? `unix://${path}` : `${url.protocol}//${url.host}`,
      // Fields without a value are left out: the client takes an empty password or `tls: undefined` for a setting.
      options: {
        ...(isSocket ? { path } : { host, port: Number(url.port || 6_379) }),
        ...(url.protocol === "rediss:" ? { tls: {} } : {}),
        ...(username === "" ? {} : { username }),
        ...(password === "" ? {} : { password }),
        db: Number(db),
      },
    };
  } catch {
    return `${EXPECTED}; write a "%" as %25`;
  }
}

function readPassword(file: string): string {
  let password: string;
  try {
    password = readFileSync(file, "utf8").replace(/\r?\n$/, "");
  } catch (cause) {
    throw new OpenStarryError("config_invalid", {
      detail: `password_file: cannot read ${file} (${(cause as NodeJS.ErrnoException).code})`,
      hint: "name a file that the daemon's user can read",
      cause,
    });
  }
  if (password !== "" && !/[\r\n\0]/.test(password)) return password;
  throw new OpenStarryError("config_invalid", {
    detail: `password_file: ${file} does not contain exactly one line`,
    hint: "write only the password to the file",
  });
}
