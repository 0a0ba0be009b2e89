import {
  type DaemonEvent,
  type Journal,
  type JournalBatch,
  type Memo,
  OpenStarryError,
  type RunRecord,
  type StoredAgent,
} from "../../core/index.js";

export interface MemoryJournalOptions {
  /** Wall clock, milliseconds since the epoch: when memos are over. */
  now: () => number;
  /** How many events are kept at least; up to an eighth more are. */
  maxEvents: number;
}

/** Runs kept of each agent. */
const RUNS_KEPT = 20;

/** What is put in and what is handed out stay apart, as they do with a file. */
const copy = <T>(value: T): T => (value === undefined ? value : JSON.parse(JSON.stringify(value)));

function snapshotOf(batch: JournalBatch): JournalBatch {
  try {
    return copy(batch);
  } catch (cause) {
    throw new OpenStarryError("journal_unavailable", {
      detail: `the batch cannot be written as JSON: ${cause instanceof Error ? cause.message : cause}`,
      cause,
    });
  }
}

/**
 * The reference implementation: the contract in the fewest words, nothing durable. It keeps what it
 * holds for as long as the object lives, also over `stop` and `start`.
 */
export function createMemoryJournal(options: MemoryJournalOptions) {
  const agents = new Map<string, StoredAgent>();
  const runs = new Map<string, RunRecord[]>();
  const memos = new Map<string, Memo>();
  const secrets = new Map<string, Record<string, string>>();
  let events: DaemonEvent[] = [];
  let lastEventId = 0;
  let open = false;

  const whenOpen = async <T>(act: () => T): Promise<T> => {
    if (open) return act();
    throw new OpenStarryError("journal_unavailable", {
      detail: "the journal in memory is not open",
      hint: "it is open from the start of the daemon to its stop",
    });
  };

  const write = (batch: JournalBatch): DaemonEvent[] => {
    for (const record of batch.put ?? []) agents.set(record.agent.agent_id, record);
    for (const run of batch.runs ?? []) {
      const kept = (runs.get(run.agent_id) ?? []).filter((it) => it.run_id !== run.run_id);
      runs.set(run.agent_id, [run, ...kept].slice(0, RUNS_KEPT));
    }
    for (const agentId of batch.forget ?? []) {
      agents.delete(agentId);
      runs.delete(agentId);
      secrets.delete(agentId);
    }
    for (const memo of batch.memos ?? []) memos.set(memo.key, memo);
    const numbered = (batch.events ?? []).map((event) => ({ id: ++lastEventId, ...event }));
    events.push(...numbered);
    return copy(numbered);
  };

  /** In chunks, so that it costs little per event. */
  const prune = () => {
    if (events.length <= options.maxEvents * 1.125) return;
    events = events.slice(-options.maxEvents);
    for (const memo of memos.values()) if (memo.expiresAtMs <= options.now()) memos.delete(memo.key);
  };

  const journal: Journal = {
    capabilities: { durable: false },
    load: () => whenOpen(() => ({ agents: [...agents.values()].map(copy), quarantined: [] })),
    async append(batch) {
      const snapshot = snapshotOf(batch);
      return whenOpen(() => {
        const numbered = write(snapshot);
        prune();
        return numbered;
      });
    },
    events: ({ after, limit, agentId }) =>
      whenOpen(() => {
        const wanted = events.filter(
          (it) => it.id > after && (agentId === undefined || it.agent_id === agentId),
        );
        const oldest = events[0]?.id ?? lastEventId + 1;
        return { events: wanted.slice(0, limit).map(copy), gap: after < oldest - 1 };
      }),
    lastEventId: () => lastEventId,
    runs: (agentId, limit) => whenOpen(() => (runs.get(agentId) ?? []).slice(0, limit).map(copy)),
    memo: (key) =>
      whenOpen(() => {
        const memo = memos.get(key);
        return memo && memo.expiresAtMs > options.now() ? copy(memo.value) : undefined;
      }),
    secrets: {
      get: (agentId) => whenOpen(() => ({ ...secrets.get(agentId) })),
      set: (agentId, values) => whenOpen(() => void secrets.set(agentId, { ...values })),
    },
  };

  return {
    journal,
    start() {
      open = true;
    },
    stop() {
      open = false;
    },
  };
}
