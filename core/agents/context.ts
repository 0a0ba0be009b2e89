import type { Agent } from "../contracts/agent.js";
import type { CreateAgent, Intent } from "../contracts/agent-control.js";
import type { JournalBatch } from "../contracts/journal.js";
import type { StoredAgent } from "../contracts/stored-agent.js";
import type { AwaitedEndpoints } from "./awaited-endpoints.js";
import type { AgentDrafts } from "./drafts.js";
import type { SupervisorDeps } from "./supervisor-deps.js";
import type { AgentTable } from "./table.js";
import type { Waiters } from "./waiters.js";
import type { AgentWorker } from "./worker/worker.js";

/** What the parts of the supervisor share. */
export interface AgentsContext extends SupervisorDeps {
  readonly table: AgentTable;
  readonly drafts: AgentDrafts;
  readonly waiters: Waiters;
  readonly awaited: AwaitedEndpoints;
  /** Workers that wait in `pending` for something. */
  readonly waiting: Set<AgentWorker>;
  /** Journals a batch, then publishes its events. Rejects with `journal_unavailable`. */
  write(batch: JournalBatch): Promise<void>;
  /** Makes the record of a new agent and its worker. Rejects with what is wrong with it, nothing changed. */
  create(spec: CreateAgent, intent: Intent, origin: StoredAgent["origin"]): Promise<Agent>;
  /** The worker of a record, not begun yet. `written` resolves when the record is durable. */
  newWorker(stored: StoredAgent, written?: Promise<void>): AgentWorker;
}
