import { type Clock, type ErrorCode, OpenStarryError, sleep } from "../../core/index.js";

/** What a state store and a message bus have in common. */
export interface Hosted {
  readonly name: string;
  health(): string | undefined;
  wanted?(): void;
}

/** One that is left until it is needed is waited for as long as this. */
const COMING_UP_MS = 10_000;
const LOOK_MS = 25;

export interface WaitOptions {
  clock: Clock;
  /** Of the one who asks: nobody waits for it any more. */
  signal: AbortSignal;
  /** What it rejects with when it does not come up. */
  code: ErrorCode;
  /** As in "the message bus". */
  what: string;
}

/** Resolves when it can be used; one that can be brought up is told that it is wanted, and waited for. */
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
