import type { AgentCommands } from "./agent-commands.js";
import type { Clock } from "./clock.js";
import type { Config } from "./define-config.js";
import type { Dispatch } from "./operations.js";
import type {
  ConfiguredPlugin,
  DaemonControl,
  DaemonStatus,
  Endpoint,
  Logger,
  PluginInfo,
  SocketHandover,
} from "./plugin.js";

/** A plugin on its way into the kernel. */
export interface ResolvedPlugin extends ConfiguredPlugin {
  readonly origin: "default" | "config";
  /** Where the config lists it, for messages: `plugins[2]`. */
  readonly place: string;
}

export interface KernelOptions {
  /** In the order of the config, defaults first. */
  plugins: readonly ResolvedPlugin[];
  config: Config;
  /** Start the config's agents only; records of others are kept, stopped. */
  fresh?: boolean;
  dataDir: string;
  version: string;
  log: Logger;
  clock?: Clock;
  control?: DaemonControl;
  sockets?: SocketHandover;
  limits?: Partial<KernelLimits>;
}

export interface KernelLimits {
  /** How long one tap may take. */
  tapDeadlineMs: number;
  /** How long one plugin may take to start, or to stop. */
  pluginDeadlineMs: number;
  /** How long all agents together may take to stop. */
  stopBudgetMs: number;
}

export interface Kernel {
  /**
   * Sets all plugins up, opens the journal, adopts what lives, starts the plugins, reconciles. Rejects
   * with everything undone again.
   */
  start(): Promise<void>;
  /** Ends the agents in waves, or leaves them, and stops the plugins in reverse. Safe to call twice. */
  stop(how: { agents: "stop" | "keep"; reason: string; signal?: AbortSignal }): Promise<void>;
  /** Takes over a changed config as far as that can be done while running. */
  reconfigure(config: Config): Promise<{ applied: string[] }>;
  readonly dispatch: Dispatch;
  readonly agents: AgentCommands;
  status(): DaemonStatus;
  plugins(): PluginInfo[];
  endpoints(): readonly Endpoint[];
}
