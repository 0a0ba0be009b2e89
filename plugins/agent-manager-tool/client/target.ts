import { lstat, readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { OpenStarryError } from "../../../core/contracts/errors.js";

/** Where requests go, and with which token. */
export interface Target {
  readonly address: { readonly socketPath: string } | { readonly host: string; readonly port: number };
  /** For messages. */
  readonly label: string;
  readonly token?: string;
  readonly tokenFile?: string;
}

/** Asked before every request: the daemon may have come back somewhere else. */
export type TargetSource = () => Promise<Target>;

export interface TargetOptions {
  url?: string;
  socket?: string;
  token?: string;
  tokenFile?: string;
  home?: string;
}

/**
 * Prefers a socket over an address: who owns the socket's folder is the daemon's user, while a
 * loopback port may have been taken by anybody since the daemon left it. Throws `input_invalid` for an
 * address that is not on this machine.
 */
export function targetSource(options: TargetOptions): TargetSource {
  const credentials = {
    ...(options.token === undefined ? {} : { token: options.token }),
    ...(options.tokenFile === undefined ? {} : { tokenFile: options.tokenFile }),
  };
  const named = options.token !== undefined || options.tokenFile !== undefined;
  const home = resolve(options.home ?? defaultHome());
  const withHome = async (address: Omit<Target, "token" | "tokenFile">): Promise<Target> =>
    named ? { ...address, ...credentials } : { ...address, tokenFile: await operatorToken(home) };

  const { socket, url } = options;
  if (socket !== undefined) return () => withHome({ address: { socketPath: socket }, label: socket });
  if (url !== undefined) {
    const address = loopbackAddress(url);
    return () => withHome({ address, label: url });
  }
  return async () => {
    const socketPath = await socketOf(home);
    return withHome({ address: { socketPath }, label: socketPath });
  };
}

/** `$OPENSTARRY_HOME`, or `~/.openstarry/daemon`. */
export function defaultHome(env: NodeJS.ProcessEnv = process.env): string {
  return env["OPENSTARRY_HOME"] || join(homedir(), ".openstarry", "daemon");
}

/** Tokens leave this machine for nobody: only plain HTTP to a loopback address is let through. */
function loopbackAddress(text: string): { host: string; port: number } {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const name = url?.hostname.toLowerCase() ?? "";
  const loopback = name === "localhost" || name === "[::1]" || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name);
  const plain = url?.protocol === "http:" && url.username === "" && url.password === "";
  if (!url || !loopback || !plain || (url.pathname !== "/" && url.pathname !== "")) {
    throw new OpenStarryError("input_invalid", {
      detail: `the daemon's address is "${text.slice(0, 200)}", and a token is only sent to this machine itself`,
      hint: "give http://127.0.0.1:PORT or the path of the daemon's socket; reach a remote one through an SSH tunnel",
    });
  }
  // A name could be made to point elsewhere, so the one allowed name is not looked up.
  const host = name === "localhost" ? "127.0.0.1" : name.replace(/^\[|\]$/g, "");
  return { host, port: url.port === "" ? 80 : Number(url.port) };
}

/** A socket path that is too long for the system lies elsewhere; `daemon.json` says where. */
async function socketOf(home: string): Promise<string> {
  const fallback = join(home, "daemon.sock");
  try {
    const known = JSON.parse(await readFile(join(home, "daemon.json"), "utf8")) as { socket?: unknown };
    return typeof known.socket === "string" ? known.socket : fallback;
  } catch {
    // No daemon has ever run here, or it is just writing the file; connecting will tell.
    return fallback;
  }
}

/** Refuses a token that others may have read or laid there. */
async function operatorToken(home: string): Promise<string> {
  const file = join(home, "token");
  const stat = await lstat(file).catch(() => undefined);
  if (!stat) {
    throw new OpenStarryError("daemon_not_running", {
      detail: `there is no token in ${home}`,
      hint: "start a daemon there with: openstarry-daemon start, or name its folder with --home; one that runs gets a new token by: openstarry-daemon token rotate",
    });
  }
  const mine = stat.uid === process.getuid?.() || stat.uid === 0;
  const problem = !stat.isFile()
    ? "is not a plain file"
    : !mine
      ? `belongs to user ${stat.uid}`
      : (stat.mode & 0o077) !== 0
        ? `can be read by others (mode ${(stat.mode & 0o777).toString(8)})`
        : undefined;
  if (problem === undefined) return file;
  throw new OpenStarryError("unauthenticated", {
    detail: `the token file ${file} ${problem}, so it is not used`,
    hint: "make it your own with mode 600, or remove it and restart the daemon to get a new one",
  });
}
