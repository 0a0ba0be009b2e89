import type { Agent, Health, Resources, RunRecord } from "./agent.js";
import type { Principal } from "./authenticator.js";
import type { ErrorCode } from "./errors.js";
import type { SpawnSpec } from "./spawner.js";
import type { Stage } from "./stages.js";

/** One run's figures at one tick. */
export interface ResourceSample extends Readonly<Resources> {
  readonly agent_id: string;
  readonly run_id: string;
}

/** An operation that somebody asks for, on any transport: not a web server's request of the same name. */
export interface OperationRequest {
  readonly operation: string;
  /** What the operation is about, for the decision whether it may happen. */
  readonly scope: string;
  readonly input: Readonly<Record<string, unknown>>;
  readonly principal: Principal;
}

/** Why a request may not happen. There is no "allow": it could silence a later tap. */
export interface Denial {
  code: ErrorCode;
  detail: string;
  hint?: string;
}

/** What each hook hands to its taps, and what a tap may answer. */
export interface HookTypes {
  beforeSpawn: { payload: SpawnSpec; answer: SpawnSpec };
  afterSpawn: {
    payload: { readonly agent: Agent; readonly run_id: string; readonly adopted: boolean };
    answer: void;
  };
  onReady: { payload: { readonly agent: Agent; readonly run_id: string }; answer: void };
  onHealthChange: {
    payload: { readonly agent: Agent; readonly run_id: string; readonly from: Health; readonly to: Health };
    answer: void;
  };
  onResourceSample: { payload: { readonly samples: readonly ResourceSample[] }; answer: void };
  afterExit: {
    payload: { readonly agent: Agent; readonly run_id: string; readonly run: RunRecord };
    answer: void;
  };
  onRequest: { payload: OperationRequest; answer: Denial | undefined };
  onDaemonReady: { payload: { readonly at: string }; answer: void };
  onDaemonStopping: { payload: { readonly reason: string }; answer: void };
}
export type HookName = keyof HookTypes;

type Awaitable<T> = T | Promise<T>;

/** How a plugin joins one hook. It can neither fire the hook nor see the other taps. */
export interface HookTap<H extends HookName> {
  /**
   * `name` says what this tap is for: it stands in every error about it. The function may be
   * synchronous or not; it has `tapDeadlineMs` to settle. A tap that blocks the event loop cannot be
   * stopped by any deadline.
   */
  tap(
    name: string | { name: string; stage?: Stage },
    fn: (payload: HookTypes[H]["payload"]) => Awaitable<HookTypes[H]["answer"] | undefined>,
  ): void;
}

export type HookTaps = { readonly [H in HookName]: HookTap<H> };
