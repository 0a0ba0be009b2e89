export interface WaitForOptions {
  /** 5,000 when absent. */
  timeoutMs?: number;
  /** What is waited for, in words, for the failure. */
  what: string;
  /** Called when it failed: what was the case instead. */
  diagnose?: () => unknown;
}

const POLL_MS = 5;

/**
 * Polls until `condition` answers something truthy, and answers that. Fails at the deadline, saying
 * what was waited for, what the condition last answered or threw, and the diagnosis.
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  options: WaitForOptions,
): Promise<Exclude<T, undefined | false | null | 0 | "">> {
  const timeoutMs = options.timeoutMs ?? 5_000;
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  do {
    try {
      const value = await condition();
      if (value) return value as Exclude<T, undefined | false | null | 0 | "">;
      last = value;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  } while (performance.now() < deadline);
  const seen = last instanceof Error ? `it threw: ${last.message}` : `it answered: ${JSON.stringify(last)}`;
  const diagnosis = options.diagnose ? `; ${JSON.stringify(await options.diagnose())}` : "";
  throw new Error(`waited ${timeoutMs} ms in vain for ${options.what}; ${seen}${diagnosis}`);
}
