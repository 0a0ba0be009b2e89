import { existsSync } from "node:fs";
import { OpenStarryError } from "../core/contracts/errors.js";
import { type Client, clientFromEnv, createClient } from "../plugins/agent-manager-tool/client/client.js";
import { readDaemonInfo } from "./daemon/daemon-info.js";
import { lockHolder } from "./daemon/lock.js";
import type { Invocation } from "./invocation.js";

/** Longer than a daemon takes to be replaced. */
const PATIENCE_MS = 20_000;

/**
 * A client of this home's daemon: inside an agent as that agent, else as the operator. Over the unix socket, which lies where only the
 * daemon's user can put it; over the port only when there is no socket and the process that wrote down
 * the port is still there: a port that it left may be anybody's by now, and would be sent the token.
 * A patient one outlasts a restart of the daemon: for a daemon that is known to be there.
 */
export function connect({ home, env, asAgent }: Invocation<unknown>, { patient = false } = {}): Client {
  if (asAgent) return clientFromEnv(env);
  const info = readDaemonInfo(home);
  const options = { home, retryForMs: patient ? PATIENCE_MS : undefined };
  if (info?.url === undefined || (info.socket !== undefined && existsSync(info.socket)))
    return createClient(options);
  if (lockHolder(home) === info.pid) return createClient({ ...options, url: info.url });
  if (info.socket !== undefined) return createClient(options);
  throw notRunning(home);
}

export function notRunning(home: string): OpenStarryError {
  return new OpenStarryError("daemon_not_running", {
    detail: `no daemon runs on ${home}`,
    hint: "start one with: openstarry-daemon start, or name its folder with --home",
  });
}
