import { type DaemonEvent, type Journal, OpenStarryError } from "../../core/index.js";
import { openJournalFile } from "./database-file.js";
import { type EncodedBatch, encodeBatch } from "./encode.js";
import { FILE_NAME, messageOf, unavailable } from "./failures.js";
import { createGroupCommit, type GroupCommit } from "./group-commit.js";
import { createLogSync } from "./log-sync.js";
import { createSecretFiles, type SecretFiles } from "./secret-files.js";
import { createTables, type Tables } from "./tables.js";
import { createWriter, type WriterOptions } from "./writer.js";

export interface SqliteJournalOptions extends WriterOptions {
  /** Where `journal.db` and `agents/` are. It must exist. */
  dataDir: string;
}

interface Opened {
  readonly tables: Tables;
  readonly commits: GroupCommit<EncodedBatch, DaemonEvent[]>;
  readonly close: () => void;
}

interface State {
  opened?: Opened;
  lastEventId: number;
}

/** A journal in one SQLite file (`journal.db`) of a folder, and its secrets beside it. */
export function createSqliteJournal(options: SqliteJournalOptions) {
  const secrets = createSecretFiles(options.dataDir);
  const state: State = { lastEventId: 0 };
  return {
    journal: createFace(state, secrets, options),
    /** Opens the file, or rejects with `home_unusable` and leaves it untouched. */
    async start() {
      if (!state.opened) await open(state, secrets, options);
    },
    /** Writes what waits, folds the write-ahead log into the file and closes it. */
    async stop() {
      const closing = state.opened;
      state.opened = undefined;
      await closing?.commits.flush();
      closing?.close();
    },
  };
}

async function open(state: State, secrets: SecretFiles, options: SqliteJournalOptions): Promise<void> {
  const { default: DatabaseOf } = await import("libsql");
  const database = openJournalFile(DatabaseOf, options.dataDir);
  const tables = createTables(database);
  state.lastEventId = tables.lastEventId();
  const write = createWriter(tables, secrets, options, (lastEventId) => {
    state.lastEventId = lastEventId;
  });
  const log = createLogSync(options.dataDir);
  state.opened = {
    tables,
    commits: createGroupCommit({ write, sync: log.sync, needsSync: ({ sync }) => sync }),
    close() {
      log.close();
      // The package closes a file only when its statements are collected; this leaves nothing to lose.
      database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
      database.close();
    },
  };
}

function createFace(state: State, secrets: SecretFiles, options: SqliteJournalOptions): Journal {
  const use = (): Opened => {
    if (state.opened) return state.opened;
    throw new OpenStarryError("journal_unavailable", {
      detail: `${FILE_NAME} is not open`,
      hint: "it is open from the start of the daemon to its stop",
    });
  };
  const read = async <T>(act: (tables: Tables) => T): Promise<T> =>
    unavailable(`${FILE_NAME} could not be read`, () => act(use().tables));

  return {
    capabilities: { durable: true },
    async load() {
      const loaded = await read((tables) => tables.agents());
      sweepSecrets(loaded, secrets, options);
      return loaded;
    },
    append: async (batch) => use().commits.add(encodeBatch(batch)),
    async events(query) {
      const { events, oldestId, damaged } = await read((tables) => tables.events(query));
      return { events, gap: damaged || query.after < (oldestId ?? state.lastEventId + 1) - 1 };
    },
    lastEventId: () => state.lastEventId,
    runs: (agentId, limit) => read((tables) => tables.runs(agentId, limit)),
    memo: (key) => read((tables) => tables.memo(key, options.clock.now())),
    secrets: {
      async get(agentId) {
        use();
        return unavailable(`the values of ${agentId} could not be read`, () => secrets.get(agentId));
      },
      async set(agentId, values) {
        use();
        unavailable(`the values of ${agentId} could not be kept`, () => secrets.set(agentId, values));
      },
    },
  };
}

/** Values of an agent that is gone must never reach a later one of its name. */
function sweepSecrets(
  loaded: Awaited<ReturnType<Journal["load"]>>,
  secrets: SecretFiles,
  options: SqliteJournalOptions,
): void {
  const known = new Set([
    ...loaded.agents.map((record) => record.agent.agent_id),
    ...loaded.quarantined.map(({ key }) => key),
  ]);
  try {
    secrets.sweep((agentId) => known.has(agentId));
  } catch (error) {
    options.onProblem?.(`left-over values of agents could not be removed: ${messageOf(error)}`);
  }
}
