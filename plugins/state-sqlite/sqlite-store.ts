import { OpenStarryError, type StateEntry, type StateStore, type StateWrite } from "../../core/index.js";
import { unavailable } from "../kit/sqlite/failures.js";
import { createGroupCommit, type GroupCommit } from "../kit/sqlite/group-commit.js";
import { type OpenDatabase, openDatabase } from "../kit/sqlite/open-database.js";
import { encodeWrite, entryOf, isLive } from "../kit/state-plan.js";
import { stateFile } from "./state-file.js";
import { createTables, type Tables } from "./tables.js";
import { createWatches, type Watches } from "./watches.js";
import { type Batch, createWriter, type Outcome, type Writer, type WriterOptions } from "./writer.js";

export interface SqliteStoreOptions extends WriterOptions {
  /** Where `state.db` is. It must exist. */
  dataDir: string;
}

interface Opened {
  readonly file: OpenDatabase<Tables>;
  readonly commits: GroupCommit<Batch, Outcome>;
  readonly writer: Writer;
  readonly stopClearingUp: () => void;
}

/** How often it is looked for entries whose time is over, and how soon again while there is more to do. */
const CLEAR_UP_MS = 1_000;
const GO_ON_MS = 20;

/** A state store in one SQLite file (`state.db`) of a folder. */
export function createSqliteStore(options: SqliteStoreOptions) {
  let opened: Opened | undefined;
  const use = (): Opened => {
    if (opened) return opened;
    throw new OpenStarryError("state_unavailable", {
      detail: `${stateFile.fileName} is not open`,
      hint: "it is open from the start of the daemon to its stop",
    });
  };
  const read = <T>(act: (tables: Tables) => T): T =>
    unavailable(stateFile, `${stateFile.fileName} could not be read`, () => act(use().file.tables));
  const watches = createWatches(read, options.clock.now);

  return {
    store: createFace(() => opened !== undefined, use, read, watches, options),
    /** Opens the file, or rejects with `home_unusable` and leaves it untouched. */
    async start() {
      opened ??= await open(options, watches);
    },
    /** Writes what waits, folds the write-ahead log into the file and closes it. Watches reject. */
    async stop() {
      const closing = opened;
      opened = undefined;
      closing?.stopClearingUp();
      watches.wakeAll();
      await closing?.commits.flush();
      closing?.file.close();
    },
  };
}

async function open(options: SqliteStoreOptions, watches: Watches): Promise<Opened> {
  const file = await openDatabase(stateFile, options.dataDir, createTables);
  const writer = createWriter(file.ready, options, watches.wake);
  return {
    file,
    writer,
    commits: createGroupCommit({ write: writer.write, sync: file.sync, needsSync: () => true }),
    stopClearingUp: clearUpForEver(writer, options),
  };
}

function clearUpForEver({ clearUp }: Writer, { clock }: WriterOptions): () => void {
  let cancel = () => {};
  const round = () => {
    let more = false;
    try {
      more = clearUp();
    } catch {
      // The next round tries again; a write that fails is told by the writer.
    }
    cancel = clock.after(more ? GO_ON_MS : CLEAR_UP_MS, round);
  };
  round();
  return () => cancel();
}

function createFace(
  isOpen: () => boolean,
  use: () => Opened,
  read: <T>(act: (tables: Tables) => T) => T,
  watches: Watches,
  { clock }: SqliteStoreOptions,
): StateStore {
  async function write(name: string, writes: readonly StateWrite[]): Promise<(StateEntry | undefined)[]> {
    const outcome = await use().commits.add({ name, writes: writes.map(encodeWrite) });
    if ("refused" in outcome) throw outcome.refused;
    return outcome.answers;
  }

  return {
    name: "sqlite",
    capabilities: { durable: true },
    get: async (name, key) =>
      read((tables) => {
        const row = tables.get(name, key);
        return row && isLive(row, clock.now()) ? entryOf(row) : undefined;
      }),
    write,
    list: async (name, query) =>
      read((tables) => {
        const space = tables.space(name);
        if (!space) return { entries: [], more: false };
        const { rows, more } = tables.list(space, query, clock.now());
        return { entries: rows.map(entryOf), more };
      }),
    watch: watches.changes,
    namespaces: async () => read((tables) => tables.names()),
    async drop(name) {
      const { commits, writer, file } = use();
      // What was written before is dropped too.
      const written = commits.flush();
      writer.drop(name);
      watches.end(name);
      await written;
      await file.sync();
    },
    health: () => (isOpen() ? undefined : "its file is not open"),
  };
}
