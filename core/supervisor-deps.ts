import type { Clock } from "./clock.js";
import type { DaemonEvent } from "./contracts/events.js";
import type { Config } from "./define-config.js";
import type { Hooks } from "./hooks.js";
import type { Endpoint, Logger } from "./plugin.js";
import type { SlotRegistry } from "./slots.js";
import type { Templates } from "./templates.js";

/** What the kernel gives to the supervisor and its parts. */
export interface SupervisorDeps {
  clock: Clock;
  log: Logger;
  hooks: Hooks;
  slots: SlotRegistry;
  config: () => Config;
  /** For messages. */
  configFile: string | undefined;
  dataDir: string;
  templates: Templates;
  endpoints: () => readonly Endpoint[];
  /** Every event, in order, once it is durable. */
  publish: (events: readonly DaemonEvent[]) => void;
  /** Something is wrong that no request asked about; `undefined` when it is over. */
  problem: (key: string, text: string | undefined) => void;
}
