import { type JournalBatch, type NewEvent, OpenStarryError } from "../../core/index.js";

/** A batch as rows. Made when the batch is handed over: what its objects become later does not matter. */
export interface EncodedBatch {
  put: { agentId: string; record: string }[];
  runs: { runId: string; agentId: string; record: string }[];
  forget: readonly string[];
  events: { event: NewEvent; agentId: string | undefined; record: string }[];
  memos: { key: string; value: string; expiresAtMs: number }[];
  sync: boolean;
}

/** JSON also keeps what SQLite's text would not: a NUL inside a string, a lone surrogate. */
export function encodeBatch(batch: JournalBatch): EncodedBatch {
  try {
    return {
      put: (batch.put ?? []).map((it) => ({ agentId: it.agent.agent_id, record: JSON.stringify(it) })),
      runs: (batch.runs ?? []).map((it) => ({
        runId: it.run_id,
        agentId: it.agent_id,
        record: JSON.stringify(it),
      })),
      forget: [...(batch.forget ?? [])],
      events: (batch.events ?? []).map((event) => ({
        event: { ...event },
        agentId: event.agent_id,
        record: JSON.stringify(event),
      })),
      memos: (batch.memos ?? []).map((it) => ({
        key: it.key,
        value: JSON.stringify({ value: it.value }),
        expiresAtMs: it.expiresAtMs,
      })),
      sync: batch.sync ?? true,
    };
  } catch (cause) {
    throw new OpenStarryError("journal_unavailable", {
      detail: `the batch cannot be written as JSON: ${cause instanceof Error ? cause.message : cause}`,
      cause,
    });
  }
}
