import type { Clock } from "../contracts/clock.js";

/** `setTimeout` fires at once for longer delays than this; longer waits are taken in steps. */
const LONGEST_TIMEOUT_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(delayMs, callback) {
    const end = performance.now() + Math.max(0, delayMs);
    let timer: NodeJS.Timeout;
    const arm = () => {
      const left = end - performance.now();
      timer = setTimeout(left > LONGEST_TIMEOUT_MS ? arm : callback, Math.min(left, LONGEST_TIMEOUT_MS));
      timer.unref();
    };
    arm();
    return () => clearTimeout(timer);
  },
};

/** Resolves after `delayMs` of the clock. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(delayMs, resolve);
  });
}

export function rfc3339(ms: number): string {
  return new Date(ms).toISOString();
}
