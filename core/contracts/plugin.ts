import type { Agent } from "./agent.js";
import type { AgentControl } from "./agent-control.js";
import type { AgentLookup } from "./agent-lookup.js";
import type { AgentReports } from "./agent-reports.js";
import type { Principal } from "./authenticator.js";
import type { Clock } from "./clock.js";
import type { EventListeners } from "./events.js";
import type { HookTaps } from "./hooks.js";
import type { JournalAccess } from "./journal-access.js";
import type { Dispatch } from "./operation.js";
import type { ServiceSpec } from "./service.js";
import type { Arity, Provided, Slot } from "./slot.js";
import type { InferInput, InferOutput, StandardSchema } from "./standard-schema.js";
import type { TemplateLookup } from "./template-source.js";

/** The version of the contract between kernel and plugins. */
export const API_VERSION = 1;

/** A log in the manner of pino: fields first, then words. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** A place where agents reach something, told to them as `OPENSTARRY_<NAME>_URL`. */
export interface Endpoint {
  /** Lower case, as `requires` in templates names it. */
  readonly name: string;
  readonly protocol: string;
  /** The variable that tells agents of it, where `OPENSTARRY_<NAME>_URL` does not fit. */
  readonly variable?: string;
  /** Why it cannot be used now; `undefined` when it can. */
  health(): string | undefined;
  /** `undefined`: nothing for this agent. */
  urlFor(agent: { agent_id: string; run_id: string }): string | undefined;
  /**
   * An agent that requires it wants to start: brings it up, where that was left until it is needed, or
   * where it has failed. Returns at once; told once for each agent that begins to wait.
   */
  wanted?(): void;
}

/** A plugin as the kernel sees it. */
export interface PluginInfo {
  name: string;
  version?: string;
  /** A default of the daemon, or named in the config. */
  origin: "default" | "config";
  state: "loaded" | "started" | "degraded" | "stopped";
  /** The last thing that went wrong with it. */
  problem?: string;
}

/** What the whole daemon is doing, for the plugins that tell it. */
export interface DaemonStatus {
  version: string;
  pid: number;
  started_at: string;
  /** `starting` until the agents are reconciled; `stopping` from the first moment of a stop. */
  state: "starting" | "ready" | "stopping";
  /** What is not as it should be, in words. */
  problems: string[];
  /** The newest event's: what a reader of all events has to reach. Absent while starting. */
  last_event_id?: number;
}

/** What the process around the kernel can do to the daemon as a whole. */
export interface DaemonControl {
  /** Resolves when the stop has begun. `agents` absent: as the config says. */
  stop(how: { agents?: "stop" | "keep"; actor: string }): Promise<void>;
  /** Replaces the daemon while agents run on. Rejects, and changes nothing, when a successor could not start. */
  restart(how: { actor: string }): Promise<void>;
  /** Reads the config again. Answers what changed and what waits for a restart, in words. */
  reload(how: { actor: string }): Promise<{ applied: string[]; needs_restart: string[] }>;
}

/** Listening sockets that outlive this daemon: its successor inherits them by name. */
export interface SocketHandover {
  /** The descriptor that the predecessor offered under this name. */
  inherited(name: string): number | undefined;
  offer(name: string, fd: number): void;
  /** True once a successor holds what was offered: then nothing of it may be removed at the stop. */
  handedOver(): boolean;
}

/** All that a plugin can do. The built-in ones get the same. */
export interface PluginContext {
  readonly name: string;
  readonly log: Logger;
  readonly clock: Clock;
  /** A folder of this plugin's own may be made in here; the daemon's home. */
  readonly dataDir: string;
  readonly hooks: HookTaps;
  /** Inside `setup` only. */
  provide<T>(slot: Slot<T>, implementation: T): void;
  /** From `start` on; inside `setup` only for slots in `requires` and `optional`. */
  use<T, A extends Arity>(slot: Slot<T, A>): Provided<T, A>;
  has(slot: Slot<unknown>): boolean;
  readonly dispatch: Dispatch;
  readonly templates: TemplateLookup;
  /** Looks at agents. */
  readonly agents: AgentLookup;
  /** Changes what is desired of agents. */
  readonly control: AgentControl;
  /** Records what is observed of live runs. */
  readonly reports: AgentReports;
  /** Finished runs, events and small facts that outlive the daemon. */
  readonly journal: JournalAccess;
  /** Events as they are journaled. */
  readonly events: EventListeners;
  readonly services: {
    publishEndpoint(endpoint: Endpoint): void;
    /**
     * From `start` on: sees to it that the service `svc:NAME` runs, and runs as this spec says; one that
     * runs so already is left alone, one that runs otherwise is restarted. Resolves when that is journaled;
     * `agents.wait` tells when it is ready. A plugin asks for each of its services again at every start:
     * those that nobody has asked for when all plugins are started are ended and forgotten. Rejects with
     * `plugin_conflict` when another plugin has asked for that name.
     */
    ensure(name: string, spec: ServiceSpec): Promise<Agent>;
    /** The service as it is; also one that an earlier daemon ran. */
    get(name: string): Agent | undefined;
    endpoints(): readonly Endpoint[];
  };
  /** The daemon as a whole. */
  readonly daemon: {
    status(): DaemonStatus;
    plugins(): PluginInfo[];
    /** Reports a fault that is not tied to a hook: logged, shown, and the plugin is `degraded`. */
    degraded(problem: string): void;
    recovered(): void;
    readonly control: DaemonControl;
    readonly sockets: SocketHandover;
  };
  /** This plugin as a principal, for `dispatch`. */
  readonly principal: Principal;
}

/** What `setup` answers: both optional, both given a signal that aborts at the deadline. */
export interface PluginLifecycle {
  /** After all set-ups, providers first. Throwing stops the daemon's start. */
  start?(signal: AbortSignal): Promise<void> | void;
  /** In reverse; must be safe to call twice. */
  stop?(signal: AbortSignal): Promise<void> | void;
}

export interface PluginDefinition<S extends StandardSchema = StandardSchema> {
  readonly name: string;
  readonly apiVersion: typeof API_VERSION;
  readonly version?: string;
  /** Slots that must be filled by somebody. Their providers are set up and started first. */
  readonly requires?: readonly Slot<unknown>[];
  /** Slots that are used when filled. */
  readonly optional?: readonly Slot<unknown>[];
  readonly provides?: readonly Slot<unknown>[];
  readonly options: S;
  /** Synchronous, no I/O: tap, provide, use. */
  setup(context: PluginContext, options: InferOutput<S>): PluginLifecycle | void;
}

/** A plugin with its options, ready to be listed in a config. */
export interface ConfiguredPlugin {
  readonly definition: PluginDefinition<StandardSchema>;
  readonly options: unknown;
}

/** What `definePlugin` answers: list it as it is, or called with options. */
export interface PluginFactory<I> {
  (options?: I): ConfiguredPlugin;
  readonly definition: PluginDefinition<StandardSchema>;
}

export function definePlugin<S extends StandardSchema>(
  definition: PluginDefinition<S>,
): PluginFactory<InferInput<S>> {
  const plain = Object.freeze({ ...definition }) as unknown as PluginFactory<never>["definition"];
  const factory = (options?: InferInput<S>): ConfiguredPlugin =>
    Object.freeze({ definition: plain, options: options ?? {} });
  return Object.freeze(Object.assign(factory, { definition: plain }));
}

/** A plugin on its way into the kernel. */
export interface ResolvedPlugin extends ConfiguredPlugin {
  readonly origin: "default" | "config";
  /** Where the config lists it, for messages: `plugins[2]`. */
  readonly place: string;
}
