import type { Clock } from "../../core/index.js";

/** Hands on what is said last, about each run at most once in `everyMs`: every new word goes to the journal. */
export function createLatestWords(
  clock: Clock,
  everyMs: number,
  pass: (agentId: string, runId: string, words: string) => void,
) {
  const later = new Map<string, { agentId: string; words: string | undefined }>();

  function passOn(agentId: string, runId: string, words: string) {
    pass(agentId, runId, words);
    later.set(runId, { agentId, words: undefined });
    clock.after(everyMs, () => {
      const next = later.get(runId)?.words;
      if (next === undefined) later.delete(runId);
      else passOn(agentId, runId, next);
    });
  }

  return {
    say(agentId: string, runId: string, words: string) {
      const waits = later.get(runId);
      if (waits) waits.words = words;
      else passOn(agentId, runId, words);
    },
    /** Nothing more is to be said of a run. */
    end: (runId: string) => void later.delete(runId),
  };
}
