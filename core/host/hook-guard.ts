import type { Clock } from "../contracts/clock.js";
import { isOpenStarryError, isSpawnDeferred, isSpawnVetoed, OpenStarryError } from "../contracts/errors.js";
import type { HookName, HookTap, HookTaps } from "../contracts/hooks.js";
import { STAGES, type Stage } from "../contracts/stages.js";
import { withDeadline } from "../lib/deadline.js";
import { HOOK_KINDS, type Hooks } from "./hooks.js";

export interface GuardOptions {
  plugin: string;
  clock: Clock;
  tapDeadlineMs: number;
  /** True once the plugin was stopped: its taps are skipped. */
  isStopped: () => boolean;
  /** Told when a tap of an observer hook threw or did not settle; with `undefined` once it works again. */
  onFault: (tap: string, error: OpenStarryError | undefined) => void;
}

/**
 * The taps of one plugin: every tap becomes a promise with a deadline, its errors carry plugin, hook
 * and tap. Observers that fail are reported and skipped; deciders rethrow to the kernel.
 */
export function createHookTaps(hooks: Hooks, guard: GuardOptions): HookTaps {
  const taps = {} as { -readonly [H in HookName]: HookTap<H> };
  for (const hook of Object.keys(hooks) as HookName[]) {
    taps[hook] = {
      tap(name: string | { name: string; stage?: Stage }, fn: (payload: never) => unknown) {
        const tap = typeof name === "string" ? { name } : name;
        const stage = STAGES[tap.stage ?? "DEFAULT"];
        const guarded = (payload: unknown) => runTap(hook, tap.name, fn, payload, guard);
        // tapable's type differs per hook; the guard gives each the same shape.
        (hooks[hook] as { tapPromise(o: object, f: (p: unknown) => Promise<unknown>): void }).tapPromise(
          { name: `${guard.plugin}/${tap.name}`, stage },
          guarded,
        );
      },
    } as never;
  }
  return Object.freeze(taps);
}

async function runTap(
  hook: HookName,
  tap: string,
  fn: (payload: never) => unknown,
  payload: unknown,
  guard: GuardOptions,
): Promise<unknown> {
  // A waterfall keeps its value when a tap answers undefined.
  if (guard.isStopped()) return undefined;
  try {
    const late = `it did not settle within ${guard.tapDeadlineMs} ms`;
    const answer = await withDeadline(guard.clock, guard.tapDeadlineMs, late, () => fn(payload as never));
    guard.onFault(`${hook}/${tap}`, undefined);
    return answer;
  } catch (cause) {
    if (hook === "beforeSpawn" && (isSpawnVetoed(cause) || isSpawnDeferred(cause))) throw cause;
    const why = cause instanceof Error || isOpenStarryError(cause) ? cause.message : String(cause);
    const error = new OpenStarryError("hook_failed", {
      detail: `plugin ${guard.plugin}, hook ${hook}, tap "${tap}": ${why}`,
      hint: `look into plugin ${guard.plugin}; it can be removed with ["${guard.plugin}", false]`,
      data: { plugin: guard.plugin, hook, tap },
      cause,
    });
    if (HOOK_KINDS[hook] === "decider") throw error;
    guard.onFault(`${hook}/${tap}`, error);
    return undefined;
  }
}
