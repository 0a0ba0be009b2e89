import { AsyncParallelHook, AsyncSeriesBailHook, AsyncSeriesHook, AsyncSeriesWaterfallHook } from "tapable";
import type { Denial, HookName, HookTypes, OperationRequest } from "../contracts/hooks.js";
import type { SpawnSpec } from "../contracts/spawner.js";

/** What the kernel does with the answers, and with a tap that throws. */
export const HOOK_KINDS: { readonly [H in HookName]: "decider" | "observer" } = {
  beforeSpawn: "decider",
  afterSpawn: "observer",
  onReady: "observer",
  onHealthChange: "observer",
  onResourceSample: "observer",
  afterExit: "observer",
  onRequest: "decider",
  onDaemonReady: "observer",
  onDaemonStopping: "observer",
};

/** The one table of hooks; one per kernel. Plugins never see it: they get taps (`HookTaps`). */
export function createHooks() {
  return Object.freeze({
    /**
     * Before every start, automatic restarts included. Each tap answers the SpawnSpec for the next;
     * identity fields and `OPENSTARRY_*` variables stay what they were. `SpawnVetoed` makes the agent
     * `failed`; `SpawnDeferred` leaves it `pending` and asks again later; any other error counts as a
     * failed start. @since 0.1.0
     */
    beforeSpawn: new AsyncSeriesWaterfallHook<[SpawnSpec]>(["spec"]),
    /** The process exists, or was adopted. Done before that run's `afterExit`. @since 0.1.0 */
    afterSpawn: new AsyncSeriesHook<[HookTypes["afterSpawn"]["payload"]]>(["event"]),
    /** A run became ready; at most once per run. In order per agent. @since 0.1.0 */
    onReady: new AsyncSeriesHook<[HookTypes["onReady"]["payload"]]>(["event"]),
    /** Transitions only, in order per agent. @since 0.1.0 */
    onHealthChange: new AsyncSeriesHook<[HookTypes["onHealthChange"]["payload"]]>(["event"]),
    /**
     * What all live runs use, in one batch per tick of the sampler; a tick is skipped while one is in
     * flight. Runs that nobody could measure are not in it. @since 0.1.0
     */
    onResourceSample: new AsyncParallelHook<[HookTypes["onResourceSample"]["payload"]]>(["batch"]),
    /**
     * A run is over and its tree is gone. At least once per run, with `run_id` as its key; exactly once
     * unless the daemon dies meanwhile. Also for runs that ended while no daemon lived. @since 0.1.0
     */
    afterExit: new AsyncSeriesHook<[HookTypes["afterExit"]["payload"]]>(["event"]),
    /**
     * Every operation from any transport, after authentication and validation, before it acts. A tap
     * answers nothing (no objection) or a denial; a tap that throws denies. Not the web server's hook of
     * that name. @since 0.1.0
     */
    onRequest: new AsyncSeriesBailHook<[OperationRequest], Denial | undefined>(["request"]),
    /** All plugins are started and the agents reconciled. @since 0.1.0 */
    onDaemonReady: new AsyncSeriesHook<[HookTypes["onDaemonReady"]["payload"]]>(["event"]),
    /** Before the first agent or plugin is stopped. @since 0.1.0 */
    onDaemonStopping: new AsyncSeriesHook<[HookTypes["onDaemonStopping"]["payload"]]>(["event"]),
  });
}
export type Hooks = ReturnType<typeof createHooks>;
