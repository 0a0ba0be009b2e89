import type { Clock } from "../contracts/clock.js";

/**
 * Runs `work` and settles as it does, or rejects once `limitMs` have passed; `signal` then aborts. Work that goes on
 * regardless is not waited for, and what it rejects with later is dropped. A call that blocks the event loop cannot be
 * interrupted by any deadline.
 */
export async function withDeadline<T>(
  clock: Pick<Clock, "after">,
  limitMs: number,
  late: string,
  work: (signal: AbortSignal) => T | Promise<T>,
): Promise<T> {
  const abort = new AbortController();
  let cancel = () => {};
  const deadline = new Promise<never>((_, reject) => {
    cancel = clock.after(limitMs, () => {
      const error = new Error(late);
      abort.abort(error);
      reject(error);
    });
  });
  try {
    return await Promise.race([Promise.resolve().then(() => work(abort.signal)), deadline]);
  } finally {
    cancel();
  }
}
