import type { RunRecord } from "./agent.js";
import type { DaemonEvent } from "./events.js";
import type { EventQuery, Memo } from "./journal.js";

/** Reads the journal, and adds facts of a plugin's own to it. */
export interface JournalAccess {
  /** Finished runs, newest first. */
  runs(agentId: string, limit: number): Promise<RunRecord[]>;
  /** In order; `gap` when some between were pruned. */
  events(query: EventQuery): Promise<{ events: DaemonEvent[]; gap: boolean }>;
  lastEventId(): number;
  memo(key: string): Promise<unknown>;
  /** Adds facts to the journal that outlive the daemon. */
  putMemo(memo: Memo): Promise<void>;
}
