import type { DaemonControl, Logger } from "../../core/contracts/plugin.js";
import type { Kernel } from "../../core/kernel.js";
import type { DaemonSetup } from "./daemon-setup.js";
import type { HandedSockets } from "./handed-sockets.js";
import type { Lock } from "./lock.js";
import type { DaemonOptions } from "./options.js";
import type { ServiceManager } from "./service-manager.js";

/** The state that the parts of the daemon process share. */
export interface RunningDaemon {
  readonly options: DaemonOptions;
  readonly log: Logger;
  /** Another program supervises this process; it is replaced only if a service manager follows the successor. */
  readonly foreground: boolean;
  readonly manager?: ServiceManager;
  readonly sockets: HandedSockets;
  readonly setup: DaemonSetup;
  phase: "booting" | "running" | "restarting" | "stopping";
  /** A stop request that has to wait until the current phase is over. */
  stopAsked?: Parameters<DaemonControl["stop"]>[0];
  lock: Lock;
  control: DaemonControl;
  /** From `booting` on. */
  kernel: Kernel;
  /** Aborted by the second signal: agents that are still stopping are killed. */
  readonly force: AbortController;
  /** Ends the process with this exit code. */
  end(exitCode: number): void;
}
