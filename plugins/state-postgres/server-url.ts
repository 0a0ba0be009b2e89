import { readFileSync } from "node:fs";
import type { ClientConfig } from "pg";
import { OpenStarryError } from "../../core/index.js";

/** A server that runs, and how to speak of it: `place` holds no credentials. */
export interface Server {
  place: string;
  connection: ClientConfig;
}

const EXPECTED = "expected postgres://USER@HOST:PORT/DATABASE";
const MODES = ["disable", "require", "verify-full"];

/** What a URL means, or what is wrong with it: in words that hold nothing of it, as it may hold a password. */
export function parseUrl(text: string): Server | string {
  // One of a socket's folder names no host.
  const url = parse(text) ?? parse(text.replace(/^(postgres(?:ql)?:\/\/[^/?#]*@)(?=[/?]|$)/, "$1localhost"));
  if (!url || !["postgres:", "postgresql:"].includes(url.protocol)) return EXPECTED;
  if (url.hash !== "") return `${EXPECTED}; a "#" in a password is written %23`;
  const { host: folder, sslmode = "disable", sslrootcert, ...further } = Object.fromEntries(url.searchParams);
  if (Object.keys(further).length > 0)
    return `${EXPECTED}, and behind the "?" only host, sslmode and sslrootcert`;
  if (!MODES.includes(sslmode)) return `sslmode is not one of ${MODES.join(", ")}`;
  if (sslrootcert !== undefined && sslmode !== "verify-full") return "sslrootcert is for sslmode=verify-full";
  if (folder !== undefined && !folder.startsWith("/"))
    return "host is the folder of a socket: expected an absolute path";
  if (folder === undefined && url.hostname === "") return `${EXPECTED}, or ?host=/FOLDER for a socket`;
  try {
    const [user, password] = [decodeURIComponent(url.username), decodeURIComponent(url.password)];
    const database = decodeURIComponent(url.pathname.slice(1));
    const host = folder ?? url.hostname.replace(/^\[|\]$/g, "");
    const port = Number(url.port || 5_432);
    return {
      place: folder === undefined ? `${url.hostname}:${port}` : `the socket in ${folder}`,
      connection: {
        host,
        port,
        ssl: tlsOf(sslmode, sslrootcert),
        ...(user === "" ? {} : { user }),
        ...(password === "" ? {} : { password }),
        ...(database === "" ? {} : { database }),
      },
    };
  } catch (error) {
    if (error instanceof URIError) return `${EXPECTED}; a "%" is written %25`;
    return "sslrootcert cannot be read";
  }
}

/** As libpq means it: `require` hides what is sent, and only `verify-full` knows who reads it. */
function tlsOf(sslmode: string, sslrootcert: string | undefined): NonNullable<ClientConfig["ssl"]> {
  if (sslmode === "disable") return false;
  if (sslmode === "require") return { rejectUnauthorized: false };
  return sslrootcert === undefined ? {} : { ca: readFileSync(sslrootcert, "utf8") };
}

function parse(text: string): URL | undefined {
  return URL.canParse(text) ? new URL(text) : undefined;
}

/** Throws `config_invalid` unless the file holds one line. */
export function readPassword(file: string): string {
  let password: string;
  try {
    password = readFileSync(file, "utf8").replace(/\r?\n$/, "");
  } catch (cause) {
    throw new OpenStarryError("config_invalid", {
      detail: `state-postgres: password_file: ${file} cannot be read (${(cause as NodeJS.ErrnoException).code})`,
      hint: "name a file that the daemon's user may read",
      cause,
    });
  }
  if (password !== "" && !/[\r\n\0]/.test(password)) return password;
  throw new OpenStarryError("config_invalid", {
    detail: `state-postgres: password_file: ${file} does not hold one line`,
    hint: "write the password into it, and nothing else",
  });
}
