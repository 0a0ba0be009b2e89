import { rmSync } from "node:fs";
import { join } from "node:path";
import { HOME_FILES, readPrivateFile, writePrivateFile } from "./home.js";

/** `daemon.json`: how to reach the daemon of this home. Written when it is ready, removed by a clean stop. */
export interface DaemonInfo {
  pid: number;
  /** RFC 3339, UTC. */
  started_at: string;
  version: string;
  home: string;
  /** Absent: nothing listens on a port. */
  port?: number;
  url?: string;
  socket?: string;
  /** Absent: the daemon runs without a config file. */
  config?: string;
  /** Why the last restart failed, so that this daemon keeps running. */
  restart_problem?: string;
}

export function writeDaemonInfo(info: DaemonInfo): void {
  writePrivateFile(join(info.home, HOME_FILES.info), `${JSON.stringify(info, undefined, 2)}\n`);
}

export function removeDaemonInfo(home: string): void {
  rmSync(join(home, HOME_FILES.info), { force: true });
}

/**
 * Reads what the last daemon of this home wrote; `undefined` if the file is missing or invalid. It may be stale: only
 * the lock proves that a daemon is alive.
 */
export function readDaemonInfo(home: string): DaemonInfo | undefined {
  const text = readPrivateFile(join(home, HOME_FILES.info));
  if (text === undefined) return undefined;
  try {
    const info: unknown = JSON.parse(text);
    return isDaemonInfo(info) ? info : undefined;
  } catch {
    // Not a file of a daemon that this command can talk to.
    return undefined;
  }
}

function isDaemonInfo(value: unknown): value is DaemonInfo {
  if (typeof value !== "object" || value === null) return false;
  const info = value as Record<string, unknown>;
  const optional = (name: string, type: string) => info[name] === undefined || typeof info[name] === type;
  return (
    Number.isSafeInteger(info.pid) &&
    (info.pid as number) > 1 &&
    typeof info.started_at === "string" &&
    typeof info.version === "string" &&
    typeof info.home === "string" &&
    optional("port", "number") &&
    optional("url", "string") &&
    optional("socket", "string") &&
    optional("config", "string") &&
    optional("restart_problem", "string")
  );
}
