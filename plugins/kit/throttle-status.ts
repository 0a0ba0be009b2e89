import type { Clock } from "../../core/index.js";

/**
 * Limits how often the status of a run is passed on, as to the journal: at most once in `everyMs`. Status reports in
 * between are merged and passed on at the end of that time.
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
      // The run may have ended meanwhile.
      if (later.get(runId) !== waits) return;
      later.delete(runId);
      if (waits.words === undefined) return;
      wait(agentId, runId);
      pass(agentId, runId, waits.words);
    });
  }

  return {
    /** Returns whether the caller may pass this status on now; otherwise it is passed on later. */
    isTime(agentId: string, runId: string, words: W): boolean {
      const waits = later.get(runId);
      if (waits) waits.words = { ...waits.words, ...words };
      else wait(agentId, runId);
      return waits === undefined;
    },
    /** Drops what is pending of a run that has ended. */
    end: (runId: string) => void later.delete(runId),
  };
}
