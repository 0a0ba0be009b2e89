import type { Database } from "libsql";
import type { Clock } from "../../../../core/index.js";
import { createRecentMessages } from "../../../kit/bus/recent-messages.js";
import type { Found, GroupBook, KeptLog } from "../../../kit/bus/storage.js";
import { unavailable } from "../../../kit/sqlite/failures.js";
import { createGroupCommit } from "../../../kit/sqlite/group-commit.js";
import { type OpenDatabase, openDatabase } from "../../../kit/sqlite/open-database.js";
import { topicMatches } from "../../../kit/topics.js";
import { busFile } from "./bus-file.js";
import { lockFolder } from "./single-writer.js";
import { createTables, type Tables, type Totals } from "./tables.js";
import { type Change, createWriter } from "./writer.js";

export interface DurableStorageOptions<T = undefined> {
  /** Where `bus.db` is. It must exist. */
  folder: string;
  clock: Pick<Clock, "now">;
  maxMessages: number;
  maxBytes: number;
  /** So much of the newest messages is held in memory too, for those who are there to read them. Default 8 MiB. */
  recentBytes?: number;
  onProblem: (problem: string | undefined) => void;
  /** Makes tables of somebody else's in the same file. */
  prepare?: (database: Database) => T;
}

export interface DurableStorage<T> {
  readonly log: KeptLog;
  readonly book: GroupBook;
  /** The file for what `prepare` has made. */
  readonly others: Pick<OpenDatabase<T>, "tables" | "ready" | "sync">;
  /** Writes what waits, folds the write-ahead log into the file and closes it. */
  close(): Promise<void>;
}

const RECENT_MESSAGES = 10_000;
const RECENT_BYTES = 8 * 2 ** 20;
/** So many messages are looked at in one go for somebody who is behind. */
const PAGE = 256;

/**
 * Messages and groups in one SQLite file. What was written at the same time shares a transaction and a sync
 * of the disk. Rejects with `home_unusable` when the file cannot be used, or is in use.
 */
export async function openDurableStorage<T = undefined>(
  options: DurableStorageOptions<T>,
): Promise<DurableStorage<T>> {
  const { clock, maxMessages, maxBytes, onProblem } = options;
  const unlock = await lockFolder(options.folder);
  const file = await openDatabase(busFile, options.folder, (database) => ({
    bus: createTables(database),
    others: options.prepare?.(database) as T,
  })).catch((error: unknown) => {
    unlock();
    throw error;
  });
  // From the time of the first start, so that a file that is made anew gives out greater positions.
  let last = file.tables.bus.last(clock.now() * 1_000 - 1);
  let count = file.tables.bus.totals().messages;
  const recent = createRecentMessages({
    maxMessages: Math.min(maxMessages, RECENT_MESSAGES),
    maxBytes: Math.min(maxBytes, options.recentBytes ?? RECENT_BYTES),
    after: last,
  });
  let isClosed = false;
  /** Positions whose messages are not synced yet, in their order. */
  const under = new Set<number>();

  const onWritten = (changes: readonly Change[], { messages }: Totals) => {
    count = messages;
    for (const it of changes) {
      if (it.type === "append") recent.add(it.position, it.message);
      if (it.type === "drop") recent.drop(it.filter);
    }
  };
  const write = createWriter({
    ready: () => file.ready().bus,
    totals: file.tables.bus.totals(),
    maxMessages,
    maxBytes,
    nowMs: clock.now,
    onWritten,
    onProblem,
  });
  const commits = createGroupCommit({ write, sync: file.sync, needsSync: () => true });
  const change = async (it: Change): Promise<void> => commits.add(it);
  const read = <T>(act: (tables: Tables) => T): T =>
    unavailable(busFile, `${busFile.fileName} could not be read`, () => act(file.tables.bus));

  function findInFile(tables: Tables, filter: string, after: number, upTo: number): Found {
    if (!/[+#]/.test(filter)) return foundOr(upTo, tables.firstOf(filter, after, upTo));
    const first = tables.first(after, upTo);
    if (!first || topicMatches(filter, first.topic)) return foundOr(upTo, first);
    const page = tables.topics(Number(first.position), upTo, PAGE);
    const fit = page.find(({ topic }) => topicMatches(filter, topic));
    if (fit) return { position: fit.position, message: tables.at(fit.position) };
    return { position: page.length < PAGE ? upTo : (page.at(-1)?.position ?? upTo) };
  }

  return {
    log: {
      append(message) {
        last += 1;
        const position = last;
        under.add(position);
        const placed = { ...message, position: String(position) };
        const kept = change({ type: "append", position, message: placed }).finally(() =>
          under.delete(position),
        );
        return { position, kept };
      },
      last: () => last,
      newest() {
        const [oldest] = under;
        return oldest === undefined ? last : oldest - 1;
      },
      count: () => count,
      at: (position) =>
        position > recent.floor() ? recent.at(position) : read((tables) => tables.at(position)),
      find: (filter, after, upTo) =>
        after >= recent.floor()
          ? recent.find(filter, after, upTo)
          : read((tables) => findInFile(tables, filter, after, upTo)),
      drop: (filter) => change({ type: "drop", filter }),
    },
    book: {
      all: () => file.tables.bus.groups(),
      save: (group, to) => change({ type: "save", group, change: to }),
      remove: (group) => change({ type: "remove", group }),
    },
    others: {
      get tables() {
        return file.tables.others;
      },
      ready: () => file.ready().others,
      sync: file.sync,
    },
    async close() {
      if (isClosed) return;
      isClosed = true;
      await commits.flush();
      try {
        file.close();
      } finally {
        unlock();
      }
    },
  };
}

function foundOr(upTo: number, message: Found["message"]): Found {
  return message ? { position: Number(message.position), message } : { position: upTo };
}
