import type { Database, Statement } from "libsql";
import {
  type DaemonEvent,
  type EventQuery,
  errorText,
  type NewEvent,
  OpenStarryError,
  type Quarantined,
  type RunRecord,
  type StoredAgent,
} from "../../core/index.js";
import type { EncodedBatch } from "./encode.js";
import { checksumOf, readStoredAgent, textOf } from "./stored-agent-check.js";

/** Runs kept of each agent. */
const RUNS_KEPT = 20;

/** The SQL of the journal, prepared once. Everything throws what SQLite throws. */
export interface Tables {
  /** All batches in one transaction; answers the events of each, numbered. */
  write(batches: readonly EncodedBatch[]): DaemonEvent[][];
  agents(): { agents: StoredAgent[]; quarantined: Quarantined[] };
  events(query: EventQuery): {
    events: DaemonEvent[];
    oldestId: number | undefined;
    /** Rows were left out because they are damaged. */
    damaged: boolean;
  };
  /** 0 when there is no event. */
  lastEventId(): number;
  runs(agentId: string, limit: number): RunRecord[];
  memo(key: string, nowMs: number): unknown;
  /** Deletes events up to this id, and memos that are over. */
  prune(throughEventId: number, nowMs: number): void;
}

type Sql = ReturnType<typeof prepareAll>;
/** Texts come as their bytes: the package ends the process when one that it decodes is not UTF-8. */
type Row = Record<string, ArrayBuffer | number | null | undefined>;

export function createTables(database: Database): Tables {
  const sql = prepareAll(database);
  const quarantine = new Map<string, string>();

  return {
    write(batches) {
      database.exec("BEGIN IMMEDIATE");
      try {
        const events = batches.map((batch) => writeOne(sql, quarantine, batch));
        database.exec("COMMIT");
        return events;
      } catch (error) {
        // SQLite has rolled back by itself where it could not go on (disk full, I/O error).
        if (database.inTransaction) database.exec("ROLLBACK");
        throw error;
      }
    },
    agents() {
      const agents: StoredAgent[] = [];
      quarantine.clear();
      for (const row of sql.agents.all() as Row[]) {
        const agentId = Buffer.from((row.agent_id ?? []) as ArrayBuffer).toString("utf8");
        try {
          agents.push(readStoredAgent(agentId, row));
        } catch (error) {
          quarantine.set(agentId, errorText(error));
        }
      }
      return { agents, quarantined: [...quarantine].map(([key, error]) => ({ key, error })) };
    },
    events({ after, limit, agentId }) {
      const rows =
        agentId === undefined ? sql.events.all(after, limit) : sql.eventsOf.all(agentId, after, limit);
      const [oldest] = sql.oldestEvent.all() as Row[];
      const readable = (rows as Row[]).flatMap((row) => {
        const event = parsed(row.record) as NewEvent | undefined;
        return event ? [{ id: Number(row.id), ...event } as DaemonEvent] : [];
      });
      return {
        events: readable,
        oldestId: oldest && Number(oldest.id),
        damaged: readable.length < rows.length,
      };
    },
    lastEventId() {
      const [row] = sql.newestEvent.all() as Row[];
      return Number(row?.id ?? 0);
    },
    runs: (agentId, limit) =>
      (sql.runs.all(agentId, limit) as Row[]).flatMap((row) => {
        const run = parsed(row.record) as RunRecord | undefined;
        return run ? [run] : [];
      }),
    memo(key, nowMs) {
      const [row] = sql.memo.all(key, nowMs) as Row[];
      return row && (parsed(row.value) as { value: unknown } | undefined)?.value;
    },
    prune(throughEventId, nowMs) {
      sql.pruneEvents.run(throughEventId);
      sql.pruneMemos.run(nowMs);
    },
  };
}

function writeOne(sql: Sql, quarantine: Map<string, string>, batch: EncodedBatch): DaemonEvent[] {
  for (const row of batch.put) {
    assertNotInQuarantine(row.agentId, quarantine);
    sql.put.run(row.agentId, row.record, checksumOf(row.record));
  }
  for (const run of batch.runs) {
    sql.putRun.run(run.runId, run.agentId, run.record);
    sql.trimRuns.run(run.agentId, run.agentId);
  }
  for (const agentId of batch.forget) {
    sql.forget.run(agentId);
    sql.forgetRuns.run(agentId);
    quarantine.delete(agentId);
  }
  for (const memo of batch.memos) sql.putMemo.run(memo.key, memo.value, memo.expiresAtMs);
  return batch.events.map(({ event, agentId, record }) => {
    const id = Number(sql.addEvent.run(agentId ?? null, record).lastInsertRowid);
    return { id, ...event };
  });
}

/** A damaged record may still tell of a live process, so nothing is written over it. */
function assertNotInQuarantine(agentId: string, quarantine: ReadonlyMap<string, string>): void {
  const error = quarantine.get(agentId);
  if (error === undefined) return;
  throw new OpenStarryError("journal_unavailable", {
    detail: `the record of agent ${agentId} is in quarantine (${error}) and is not written over`,
    hint: "use another agent_id; the record can be mended in journal.db while the daemon is stopped",
  });
}

/** `undefined` for what is not JSON. */
function parsed(bytes: Row[string]): unknown {
  try {
    return JSON.parse(textOf(bytes));
  } catch {
    return undefined;
  }
}

const bytesOf = (column: string) => `CAST(${column} AS BLOB) AS ${column}`;

function prepareAll(database: Database) {
  const prepare = (text: string): Statement<unknown[]> => database.prepare(text);
  return {
    put: prepare(
      "INSERT INTO agents (agent_id, record, checksum) VALUES (?, ?, ?) ON CONFLICT (agent_id) DO UPDATE SET record = excluded.record, checksum = excluded.checksum",
    ),
    putRun: prepare(
      "INSERT INTO runs (run_id, agent_id, record) VALUES (?, ?, ?) ON CONFLICT (run_id) DO UPDATE SET record = excluded.record",
    ),
    trimRuns: prepare(
      `DELETE FROM runs WHERE agent_id = ? AND seq <= (SELECT seq FROM runs WHERE agent_id = ? ORDER BY seq DESC LIMIT 1 OFFSET ${RUNS_KEPT})`,
    ),
    forget: prepare("DELETE FROM agents WHERE agent_id = ?"),
    forgetRuns: prepare("DELETE FROM runs WHERE agent_id = ?"),
    addEvent: prepare("INSERT INTO events (agent_id, record) VALUES (?, ?)"),
    putMemo: prepare("INSERT OR REPLACE INTO memos (key, value, expires_at) VALUES (?, ?, ?)"),
    agents: prepare(`SELECT ${bytesOf("agent_id")}, ${bytesOf("record")}, checksum FROM agents ORDER BY seq`),
    events: prepare(`SELECT id, ${bytesOf("record")} FROM events WHERE id > ? ORDER BY id LIMIT ?`),
    eventsOf: prepare(
      `SELECT id, ${bytesOf("record")} FROM events WHERE agent_id = ? AND id > ? ORDER BY id LIMIT ?`,
    ),
    oldestEvent: prepare("SELECT id FROM events ORDER BY id LIMIT 1"),
    newestEvent: prepare("SELECT id FROM events ORDER BY id DESC LIMIT 1"),
    runs: prepare(`SELECT ${bytesOf("record")} FROM runs WHERE agent_id = ? ORDER BY seq DESC LIMIT ?`),
    memo: prepare(`SELECT ${bytesOf("value")} FROM memos WHERE key = ? AND expires_at > ?`),
    pruneEvents: prepare("DELETE FROM events WHERE id <= ?"),
    pruneMemos: prepare("DELETE FROM memos WHERE expires_at <= ?"),
  };
}
