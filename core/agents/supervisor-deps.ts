import type { Clock } from "../contracts/clock.js";
import type { Config } from "../contracts/config.js";
import type { DaemonEvent } from "../contracts/events.js";
import type { Endpoint, Logger } from "../contracts/plugin.js";
import type { Hooks } from "../host/hooks.js";
import type { SlotRegistry } from "../host/slots.js";
import type { Templates } from "../template/templates.js";

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
