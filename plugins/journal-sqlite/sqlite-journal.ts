import { type DaemonEvent, type Journal, OpenStarryError } from "../../core/index.js";
import { openJournalFile, rewriteJournalFile } from "./database-file.js";
import { type EncodedBatch, encodeBatch } from "./encode.js";
import { FILE_NAME, messageOf, unavailable } from "./failures.js";
import { createGroupCommit, type GroupCommit } from "./group-commit.js";
import { createLogSync } from "./log-sync.js";
import { watchOpenFiles } from "./open-files.js";
import { createSecretFiles, type SecretFiles } from "./secret-files.js";
import type { Tables } from "./tables.js";
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
  const { dataDir } = options;
  const log = createLogSync(dataDir);
  let file = openJournalFile(DatabaseOf, dataDir);
  state.lastEventId = file.lastEventId;
  let files = watchOpenFiles(dataDir);

  /** What is written must be found again: files that were removed under the daemon are made anew. */
  const ready = (): Tables => {
    const lost = files.lost();
    if (lost === undefined) return file.tables;
    log.close();
    if (lost === "log") {
      // Leaving the mode folds the log into the file; entering it makes a new one.
      file.database.exec("PRAGMA journal_mode = DELETE; PRAGMA journal_mode = WAL");
    } else {
      file = rewriteJournalFile(DatabaseOf, dataDir, file);
      // So that it knows which records are in quarantine.
      file.tables.agents();
    }
    // The log is there as soon as something was read.
    file.tables.lastEventId();
    files = watchOpenFiles(dataDir);
    return file.tables;
  };
  const write = createWriter(ready, secrets, options, (lastEventId) => {
    state.lastEventId = lastEventId;
  });
  state.opened = {
    get tables() {
      return file.tables;
    },
    commits: createGroupCommit({ write, sync: log.sync, needsSync: ({ sync }) => sync }),
    close() {
      try {
        ready();
        // The package closes a file only when its statements are collected; this leaves nothing to lose.
        file.database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
      } finally {
        log.close();
        file.database.close();
      }
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
    options.onProblem?.(`left-over values of agents could not be removed: ${messageOf(error)}`);
  }
}
