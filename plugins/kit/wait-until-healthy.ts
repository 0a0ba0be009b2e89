import { type Clock, type ErrorCode, OpenStarryError, sleep } from "../../core/index.js";

/** What a state store and a message bus have in common. */
export interface Hosted {
  readonly name: string;
  health(): string | undefined;
  wanted?(): void;
}

/** How long to wait for one that starts when it is needed. */
const COMING_UP_MS = 10_000;
const LOOK_MS = 25;

export interface WaitOptions {
  clock: Clock;
  /** Aborts when the caller no longer waits. */
  signal: AbortSignal;
  /** The error code when it does not become healthy in time. */
  code: ErrorCode;
  /** How to call it in messages, as in "the message bus". */
  what: string;
}

/** Resolves when it is healthy. One that starts when needed is requested to start, and waited for. */
export async function waitUntilHealthy<T extends Hosted>(hosted: T, options: WaitOptions): Promise<T> {
  const { clock, signal, code, what } = options;
  const deadline = clock.monotonic() + (hosted.wanted ? COMING_UP_MS : 0);
  if (hosted.health() !== undefined) hosted.wanted?.();
  for (let problem = hosted.health(); problem !== undefined; problem = hosted.health()) {
    signal.throwIfAborted();
    if (clock.monotonic() >= deadline) {
      throw new OpenStarryError(code, {
        detail: `${what} (${hosted.name}) cannot be used now: ${problem}`,
        hint: "ask again in a moment",
        data: { retry_after_s: 1 },
      });
    }
    await sleep(clock, LOOK_MS);
  }
  return hosted;
}
