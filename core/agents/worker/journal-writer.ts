import type { RunRecord } from "../../contracts/agent.js";
import { toOpenStarryError } from "../../contracts/errors.js";
import type { NewEvent } from "../../contracts/events.js";
import type { JournalBatch } from "../../contracts/journal.js";
import type { Logger } from "../../contracts/plugin.js";
import type { StoredAgent } from "../../contracts/stored-agent.js";

/** What has happened to one agent, on its way into the journal. */
export interface JournalWriter {
  /**
   * Journals the record as it is, with these; runs and events that cannot be written go with the next that
   * can. `put`: the records of others.
   */
  write(facts: Pick<JournalBatch, "put" | "runs" | "events">): Promise<void>;
  /** The journal could not take the last write: what it knows of the agent is not how the agent is. */
  readonly isBehind: boolean;
}

export interface JournalWriterDeps {
  current: () => StoredAgent;
  append: (batch: JournalBatch) => Promise<void>;
  log: Logger;
}

/** What happens does not wait for the journal, and must not be lost by it either. */
export function createJournalWriter({ current, append, log }: JournalWriterDeps): JournalWriter {
  let unwritten: { runs: RunRecord[]; events: NewEvent[] } = { runs: [], events: [] };
  let isBehind = false;
  return {
    async write(facts) {
      const runs = [...unwritten.runs, ...(facts.runs ?? [])];
      const events = [...unwritten.events, ...(facts.events ?? [])];
      unwritten = { runs: [], events: [] };
      const stored = current();
      try {
        await append({ put: [stored, ...(facts.put ?? [])], runs, events, sync: false });
        isBehind = false;
      } catch (error) {
        unwritten = { runs: [...runs, ...unwritten.runs], events: [...events, ...unwritten.events] };
        const { agent_id } = stored.agent;
        // Once: it is tried again and again.
        if (!isBehind)
          log.error(
            { agent_id, err: toOpenStarryError(error).message },
            "a change could not be journaled yet",
          );
        isBehind = true;
        throw error;
      }
    },
    get isBehind() {
      return isBehind;
    },
  };
}
