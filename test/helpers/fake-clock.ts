import type { Clock } from "../../core/index.js";

/** A clock that stands still until a test moves it. */
export interface FakeClock extends Clock {
  /**
   * Moves both clocks on and runs every timer that falls due, in order. The event loop gets a turn after
   * each timer, so that what a timer resolves may arm the next one before time goes on.
   */
  advance(ms: number): Promise<void>;
  /** Moves the wall clock alone, as a person or a time server does. May be negative. */
  jumpWallClock(ms: number): void;
  /** How many timers wait. */
  pending(): number;
}

interface Timer {
  dueMs: number;
  order: number;
  callback: () => void;
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** `startMs`: the wall clock at first, milliseconds since the epoch. The monotonic clock starts at 0. */
export function createFakeClock(startMs = Date.UTC(2026, 0, 1)): FakeClock {
  const timers = new Set<Timer>();
  let elapsedMs = 0;
  let wallOffsetMs = startMs;
  let order = 0;

  const nextDue = (untilMs: number): Timer | undefined => {
    const due = [...timers].filter((timer) => timer.dueMs <= untilMs);
    return due.sort((a, b) => a.dueMs - b.dueMs || a.order - b.order)[0];
  };

  return {
    now: () => wallOffsetMs + elapsedMs,
    monotonic: () => elapsedMs,
    after(delayMs, callback) {
      const timer = { dueMs: elapsedMs + Math.max(0, delayMs), order: order++, callback };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    async advance(ms) {
      const untilMs = elapsedMs + ms;
      // What is already under way may arm timers that belong to this stretch of time.
      await turn();
      for (let timer = nextDue(untilMs); timer; timer = nextDue(untilMs)) {
        timers.delete(timer);
        elapsedMs = Math.max(elapsedMs, timer.dueMs);
        timer.callback();
        await turn();
      }
      elapsedMs = untilMs;
    },
    jumpWallClock(ms) {
      wallOffsetMs += ms;
    },
    pending: () => timers.size,
  };
}
