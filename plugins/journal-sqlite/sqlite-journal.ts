import { type DaemonEvent, errorText, type Journal, OpenStarryError } from "../../core/index.js";
import { unavailable } from "../kit/sqlite/failures.js";
import { createGroupCommit, type GroupCommit } from "../kit/sqlite/group-commit.js";
import { openDatabase } from "../kit/sqlite/open-database.js";
import { type EncodedBatch, encodeBatch } from "./encode.js";
import { journalFile } from "./journal-file.js";
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
  const file = await openDatabase(journalFile, options.dataDir, (database, rewritten) => {
    const tables = createTables(database);
    if (!rewritten) state.lastEventId = tables.lastEventId();
    // So that it knows which records are in quarantine.
    else tables.agents();
    return tables;
  });
  const write = createWriter(file.ready, secrets, options, (lastEventId) => {
    state.lastEventId = lastEventId;
  });
  state.opened = {
    get tables() {
      return file.tables;
    },
    commits: createGroupCommit({ write, sync: file.sync, needsSync: ({ sync }) => sync }),
    close: file.close,
  };
}

function createFace(state: State, secrets: SecretFiles, options: SqliteJournalOptions): Journal {
  const use = (): Opened => {
    if (state.opened) return state.opened;
    throw new OpenStarryError("journal_unavailable", {
      detail: `${journalFile.fileName} is not open`,
      hint: "it is open from the start of the daemon to its stop",
    });
  };
  const read = async <T>(act: (tables: Tables) => T): Promise<T> =>
    unavailable(journalFile, `${journalFile.fileName} could not be read`, () => act(use().tables));

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
        return unavailable(journalFile, `the values of ${agentId} could not be read`, () =>
          secrets.get(agentId),
        );
      },
      async set(agentId, values) {
        use();
        unavailable(journalFile, `the values of ${agentId} could not be kept`, () =>
          secrets.set(agentId, values),
        );
      },
    },
  };
}

/** Values of an agent that is gone are nobody's. A journal that knows nobody may be one that was lost. */
function sweepSecrets(
  loaded: Awaited<ReturnType<Journal["load"]>>,
  secrets: SecretFiles,
  options: SqliteJournalOptions,
): void {
  const known = new Set([
    ...loaded.agents.map((record) => record.agent.agent_id),
    ...loaded.quarantined.map(({ key }) => key),
  ]);
  if (known.size === 0) return;
  try {
    secrets.sweep((agentId) => known.has(agentId));
  } catch (error) {
    options.onProblem?.(`left-over values of agents could not be removed: ${errorText(error)}`);
  }
}
