import type { Clock } from "../../core/index.js";

/**
 * Lets what runs say of themselves to the journal at most once in `everyMs` for each run. What is said in
 * between is put together, and passed on at the end of that time.
 */
export function createStatusThrottle<W extends object>(
  clock: Clock,
  everyMs: number,
  pass: (agentId: string, runId: string, words: W) => void,
) {
  const later = new Map<string, { words: W | undefined }>();

  function wait(agentId: string, runId: string) {
    const waits: { words: W | undefined } = { words: undefined };
    later.set(runId, waits);
    clock.after(everyMs, () => {
      // It may have ended, and its next words be waited for.
      if (later.get(runId) !== waits) return;
      later.delete(runId);
      if (waits.words === undefined) return;
      wait(agentId, runId);
      pass(agentId, runId, waits.words);
    });
  }

  return {
    /** Whether it is time for them; else they are passed on later. */
    isTime(agentId: string, runId: string, words: W): boolean {
      const waits = later.get(runId);
      if (waits) waits.words = { ...waits.words, ...words };
      else wait(agentId, runId);
      return waits === undefined;
    },
    /** Nothing more is to be said of a run. */
    end: (runId: string) => void later.delete(runId),
  };
}
