import { readFileSync } from "node:fs";
import type { RedisOptions } from "ioredis";
import { z } from "zod";
import { OpenStarryError } from "../../../core/index.js";

/** Where a Redis server is, for those that use one; `checkRedis` belongs to it. */
export const redisFields = {
  managed: z.boolean().default(false).meta({
    description: "Run a server of this daemon's own, as a service: redis-server has to be installed.",
  }),
  program: z.string().startsWith("/", "expected an absolute path").optional().meta({
    description: "The file of redis-server, where it is not in PATH. With managed.",
  }),
  eager: z.boolean().default(false).meta({
    description: "Start the server with the daemon, and not when it is first needed. With managed.",
  }),
  url: z.string().optional().meta({
    description:
      "A server that runs: redis://USER:PASSWORD@HOST:PORT/DB, rediss:// (TLS), or unix:///PATH?db=DB&user=USER.",
  }),
  password_file: z.string().startsWith("/", "expected an absolute path").optional().meta({
    description: "A file with the password for url, in place of one in the URL.",
  }),
  durable: z.boolean().optional().meta({
    description: "Whether the server of url keeps what it acknowledges. Absent: it is asked.",
  }),
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9_.:-]{1,64}$/, "expected 1 to 64 of A-Z a-z 0-9 _ . : -")
    .default("openstarry")
    .meta({
      description: "What all names on the server begin with. Daemons of one prefix share what is there.",
    }),
};

export type RedisChoice = z.output<z.ZodObject<typeof redisFields>>;

/** Either a managed server or one that runs: refines an object with `redisFields`. */
export function checkRedis(options: RedisChoice, context: z.RefinementCtx): void {
  const { managed, program, eager, url, password_file, durable } = options;
  const refuse = (path: string, message: string) =>
    context.addIssue({ code: "custom", path: [path], message });
  if (managed && url !== undefined) refuse("url", 'there is "managed" beside it: keep one of the two');
  if (!managed && url === undefined) {
    refuse("url", 'say which server to use: "managed": true runs one of its own, "url" names one that runs');
  }
  if (!managed && program !== undefined) refuse("program", 'it is for "managed": true');
  if (!managed && eager) refuse("eager", 'it is for "managed": true');
  if (managed && password_file !== undefined) refuse("password_file", 'it is for "url"');
  if (managed && durable !== undefined) {
    refuse("durable", 'it is for "url": a managed server keeps what it acknowledges');
  }
  if (url === undefined) return;
  const target = parseUrl(url);
  if (typeof target === "string") refuse("url", target);
  else if (password_file !== undefined && target.options.password !== undefined) {
    refuse("password_file", "there is a password in url as well: keep one of the two");
  }
}

/** A server, and how to speak of it: `address` holds no credentials. */
export interface RedisTarget {
  address: string;
  options: Pick<RedisOptions, "host" | "port" | "path" | "db" | "username" | "password" | "tls">;
}

/** The server of `url`. Reads `password_file`; throws `config_invalid` when that cannot be used. */
export function targetOf({ url = "", password_file }: RedisChoice): RedisTarget {
  const target = parseUrl(url);
  if (typeof target === "string") throw new OpenStarryError("config_invalid", { detail: `url: ${target}` });
  if (password_file === undefined) return target;
  const { address, options } = target;
  return { address, options: { ...options, password: readPassword(password_file) } };
}

const EXPECTED = "expected redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH?db=DB&user=USER";

/** What a URL means, or what is wrong with it: in words that hold nothing of it, as it may hold a password. */
function parseUrl(text: string): RedisTarget | string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !["redis:", "rediss:", "unix:"].includes(url.protocol)) return EXPECTED;
  if (url.hash !== "") return `${EXPECTED}; a "#" in a password is written %23`;
  const isSocket = url.protocol === "unix:";
  const further = [...url.searchParams.keys()].filter(
    (name) => !(isSocket && (name === "db" || name === "user")),
  );
  if (further.length > 0) return `${EXPECTED}, and nothing else behind the "?"`;
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
      options: {
        ...(isSocket ? { path } : { host, port: Number(url.port || 6_379) }),
        ...(url.protocol === "rediss:" ? { tls: {} } : {}),
        ...(username === "" ? {} : { username }),
        ...(password === "" ? {} : { password }),
        db: Number(db),
      },
    };
  } catch {
    return `${EXPECTED}; a "%" is written %25`;
  }
}

function readPassword(file: string): string {
  let password: string;
  try {
    password = readFileSync(file, "utf8").replace(/\r?\n$/, "");
  } catch (cause) {
    throw new OpenStarryError("config_invalid", {
      detail: `password_file: ${file} cannot be read (${(cause as NodeJS.ErrnoException).code})`,
      hint: "name a file that the daemon's user may read",
      cause,
    });
  }
  if (password !== "" && !/[\r\n\0]/.test(password)) return password;
  throw new OpenStarryError("config_invalid", {
    detail: `password_file: ${file} does not hold one line`,
    hint: "write the password into it, and nothing else",
  });
}
