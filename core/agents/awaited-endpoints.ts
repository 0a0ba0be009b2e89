import type { Clock } from "../contracts/clock.js";
import type { Endpoint } from "../contracts/plugin.js";

/** How often endpoints that somebody waits for are looked at: an agent must not wait long for what is there. */
const LOOK_MS = 100;

export interface AwaitedEndpointsOptions {
  clock: Pick<Clock, "after">;
  endpoints(): readonly Endpoint[];
  /** Whether there is still somebody who waits. */
  isAnybodyWaiting(): boolean;
  /** One of them can be used now. */
  usable(): void;
}

/** A plugin's fault is no reason to look at the others no more; it is told where its answer is needed. */
function isUsable(endpoint: Endpoint): boolean {
  try {
    return endpoint.health() === undefined;
  } catch {
    return false;
  }
}

/** Endpoints do not tell when they can be used, so they are asked, as long as somebody waits for one. */
export type AwaitedEndpoints = ReturnType<typeof createAwaitedEndpoints>;

export function createAwaitedEndpoints(options: AwaitedEndpointsOptions) {
  const awaited = new Set<Endpoint>();
  let cancel: (() => void) | undefined;

  function lookLater(): void {
    cancel ??= options.clock.after(LOOK_MS, look);
  }

  function look(): void {
    cancel = undefined;
    if (!options.isAnybodyWaiting()) awaited.clear();
    const usable = [...awaited].filter(isUsable);
    for (const endpoint of usable) awaited.delete(endpoint);
    if (awaited.size > 0) lookLater();
    if (usable.length > 0) options.usable();
  }

  return {
    /** Somebody begins to wait for what this template key names; tells it that it is wanted. */
    want(names: readonly string[]): void {
      for (const endpoint of options.endpoints()) {
        if (!names.includes(endpoint.name)) continue;
        endpoint.wanted?.();
        if (!isUsable(endpoint)) awaited.add(endpoint);
      }
      if (awaited.size > 0) lookLater();
    },
    dispose: () => cancel?.(),
  };
}
