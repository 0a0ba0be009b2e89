import type { DaemonControl, Logger } from "../../core/contracts/plugin.js";
import type { Kernel } from "../../core/kernel.js";
import type { DaemonSetup } from "./daemon-setup.js";
import type { HandedSockets } from "./handed-sockets.js";
import type { Lock } from "./lock.js";
import type { DaemonOptions } from "./options.js";
import type { ServiceManager } from "./service-manager.js";

/** What the parts of the daemon process share. */
export interface RunningDaemon {
  readonly options: DaemonOptions;
  readonly log: Logger;
  /** Somebody else looks after this process; it is replaced by another only if a manager follows. */
  readonly foreground: boolean;
  readonly manager?: ServiceManager;
  readonly sockets: HandedSockets;
  readonly setup: DaemonSetup;
  phase: "booting" | "running" | "restarting" | "stopping";
  /** A stop that was asked for in a phase that cannot be left at once. */
  stopAsked?: Parameters<DaemonControl["stop"]>[0];
  lock: Lock;
  control: DaemonControl;
  /** From `booting` on. */
  kernel: Kernel;
  /** Aborted by a third signal: nothing is waited for any more. */
  readonly force: AbortController;
  /** Ends the process with this exit code. */
  end(exitCode: number): void;
}
