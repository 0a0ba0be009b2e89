import { setTimeout as delay } from "node:timers/promises";
import type { ReadyReport } from "./parent-channel.js";
import { type DatagramSender, openDatagramSender } from "./unix-datagram.js";

/**
 * The service manager that started this process, notified as in sd_notify(3). It accepts messages of the unit's main
 * process only (`NotifyAccess=main`), so a predecessor announces its successor.
 */
export interface ServiceManager {
  /** Why it cannot be notified; absent if it can. */
  readonly problem?: string;
  /** It follows the daemon to an announced process (`MAINPID`), as systemd does. */
  readonly followsSuccessors: boolean;
  /** What a successor needs in its environment to notify it. */
  readonly env: Readonly<Record<string, string>>;
  /** Sends assignments such as `READY: 1`. Resolves when they are sent or cannot be sent. */
  tell(assignments: Readonly<Record<string, string | number>>): Promise<void>;
  /** Reports from now on that this process is alive, if the manager asks for that (`WATCHDOG_USEC`). */
  feedWatchdog(): void;
}

const VARIABLES = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] as const;
const RETRIES = 20;
const RETRY_MS = 50;

/** Removes the variables of a service manager from the environment. */
export function dropServiceManager(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  for (const name of VARIABLES) delete env[name];
  return env;
}

/** Finds the service manager; `undefined` if there is none. Removes its variables from the environment: no child may speak for the daemon. */
export function takeServiceManager(
  env: NodeJS.ProcessEnv,
  openSender: typeof openDatagramSender = openDatagramSender,
): ServiceManager | undefined {
  const { NOTIFY_SOCKET: address, WATCHDOG_USEC: usec, WATCHDOG_PID: watched, INVOCATION_ID: unit } = env;
  dropServiceManager(env);
  if (!address) return undefined;
  let send: DatagramSender | undefined;
  let problem: string | undefined;
  try {
    send = openSender(address);
  } catch (error) {
    problem = `cannot reach NOTIFY_SOCKET (${address}): ${(error as Error).message}`;
  }
  const watchdogUsec = watched && Number(watched) !== process.pid ? 0 : Number(usec);
  const manager: ServiceManager = {
    problem,
    followsSuccessors: Boolean(unit) && send !== undefined,
    env:
      watchdogUsec > 0
        ? { NOTIFY_SOCKET: address, WATCHDOG_USEC: String(watchdogUsec) }
        : { NOTIFY_SOCKET: address },
    async tell(assignments) {
      const text = Object.entries(assignments)
        .map(([name, value]) => `${name}=${String(value).replaceAll("\n", " ")}`)
        .join("\n");
      for (let attempt = 0; send?.(text) === "later" && attempt < RETRIES; attempt++) await delay(RETRY_MS);
    },
    feedWatchdog() {
      if (!(watchdogUsec > 0)) return;
      // At half the interval, as sd_watchdog_enabled(3) advises.
      setInterval(() => void manager.tell({ WATCHDOG: 1 }), watchdogUsec / 2_000).unref();
    },
  };
  return manager;
}

/** Words what `systemctl status` shows of a daemon that is ready. */
export function statusLine({ version, url, socket }: ReadyReport): string {
  return `Version ${version}, ${url ?? socket ?? "without an API"}`;
}
