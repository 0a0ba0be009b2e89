import { existsSync } from "node:fs";
import { OpenStarryError } from "../core/contracts/errors.js";
import { type Client, clientFromEnv, createClient } from "../plugins/agent-manager-tool/client/client.js";
import { readDaemonInfo } from "./daemon/daemon-info.js";
import { lockHolder } from "./daemon/lock.js";
import type { Invocation } from "./invocation.js";

/** Longer than a daemon takes to be replaced. */
const PATIENCE_MS = 20_000;

/**
 * Makes a client of this home's daemon: inside an agent as that agent, otherwise as the operator. It uses the unix
 * socket, which only the daemon's user can put there. It uses the port only when there is no socket and the process
 * that published the port still runs: otherwise another program may listen there by now and would receive the token.
 * A patient client keeps retrying while the daemon restarts; use it once the daemon has answered.
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
    detail: `no daemon is running on ${home}`,
    hint: "start one with: openstarry-daemon start; or give the folder of another one with --home",
  });
}
