import type { Database } from "libsql";
import type { Clock } from "../../../../core/index.js";
import { createRecentMessages } from "../../../kit/bus/recent-messages.js";
import type { ConsumerGroupStore, FindResult, MessageLog } from "../../../kit/bus/storage.js";
import { unavailable } from "../../../kit/sqlite/failures.js";
import { createGroupCommit } from "../../../kit/sqlite/group-commit.js";
import { type OpenDatabase, openDatabase } from "../../../kit/sqlite/open-database.js";
import { topicMatches } from "../../../kit/topics.js";
import { busFile } from "./bus-file.js";
import { lockFolder } from "./folder-lock.js";
import { createTables, type Tables, type Totals } from "./tables.js";
import { type Change, createWriter } from "./writer.js";

export interface DurableStorageOptions<T = undefined> {
  /** The folder of `bus.db`. It must exist. */
  folder: string;
  clock: Pick<Clock, "now">;
  maxMessages: number;
  maxBytes: number;
  /** The size of the cache of newest messages, for readers that keep up. Default 8 MiB. */
  recentBytes?: number;
  onProblem: (problem: string | undefined) => void;
  /** Creates further tables in the same file. */
  createExtraTables?: (database: Database) => T;
}

export interface DurableStorage<T> {
  readonly log: MessageLog;
  readonly groups: ConsumerGroupStore;
  /** The file, for the tables of `createExtraTables`. */
  readonly extra: Pick<OpenDatabase<T>, "tables" | "ready" | "sync">;
  /** Writes what waits, moves the write-ahead log into the file and closes it. */
  close(): Promise<void>;
}

const RECENT_MESSAGES = 10_000;
const RECENT_BYTES = 8 * 2 ** 20;
/** How many messages one search looks at for a reader that is behind. */
const PAGE = 256;

/**
 * Opens the message log and the consumer groups in one SQLite file. Changes made at the same time share a
 * transaction and a disk sync. Rejects with `home_unusable` when the file cannot be used or another process uses it.
 */
export async function openDurableStorage<T = undefined>(
  options: DurableStorageOptions<T>,
): Promise<DurableStorage<T>> {
  const { clock, maxMessages, maxBytes, onProblem } = options;
  const unlock = await lockFolder(options.folder);
  const file = await openDatabase(busFile, options.folder, (database) => ({
    bus: createTables(database),
    extra: options.createExtraTables?.(database) as T,
  })).catch((error: unknown) => {
    unlock();
    throw error;
  });
  // Offsets of a new file start from the time, so that they are greater than those of the file it replaces.
  let lastOffset = file.tables.bus.lastOffset(clock.now() * 1_000 - 1);
  let count = file.tables.bus.totals().messages;
  const recent = createRecentMessages({
    maxMessages: Math.min(maxMessages, RECENT_MESSAGES),
    maxBytes: Math.min(maxBytes, options.recentBytes ?? RECENT_BYTES),
    after: lastOffset,
  });
  let isClosed = false;
  /** The offsets of messages that are not synced yet, in order. */
  const unsynced = new Set<number>();

  const onWritten = (changes: readonly Change[], { messages }: Totals) => {
    count = messages;
    for (const change of changes) {
      if (change.type === "append") recent.add(change.offset, change.message);
      if (change.type === "drop") recent.drop(change.filter);
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
  const read = <R>(act: (tables: Tables) => R): R =>
    unavailable(busFile, `cannot read ${busFile.fileName}`, () => act(file.tables.bus));

  const log: MessageLog = {
    append(message) {
      lastOffset += 1;
      const offset = lastOffset;
      unsynced.add(offset);
      const stored = change({ type: "append", offset, message: { ...message, position: String(offset) } });
      return { offset, stored: stored.finally(() => unsynced.delete(offset)) };
    },
    lastOffset: () => lastOffset,
    readableUpTo() {
      const [oldest] = unsynced;
      return oldest === undefined ? lastOffset : oldest - 1;
    },
    count: () => count,
    at: (offset) =>
      offset > recent.completeAfter() ? recent.at(offset) : read((tables) => tables.at(offset)),
    find: (filter, after, upTo) =>
      after >= recent.completeAfter()
        ? recent.find(filter, after, upTo)
        : read((tables) => findInFile(tables, filter, after, upTo)),
    drop: (filter) => change({ type: "drop", filter }),
  };
  return {
    log,
    groups: {
      all: () => file.tables.bus.groups(),
      save: (id, update) => change({ type: "saveGroup", id, update }),
      remove: (id) => change({ type: "removeGroup", id }),
    },
    extra: {
      get tables() {
        return file.tables.extra;
      },
      ready: () => file.ready().extra,
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

function findInFile(tables: Tables, filter: string, after: number, upTo: number): FindResult {
  const found = (message: FindResult["message"]): FindResult =>
    message ? { offset: Number(message.position), message } : { offset: upTo };

  if (!/[+#]/.test(filter)) return found(tables.firstOfTopic(filter, after, upTo));
  const first = tables.first(after, upTo);
  if (!first || topicMatches(filter, first.topic)) return found(first);
  // Looks through a page of topics before it loads a message.
  const page = tables.topics(Number(first.position), upTo, PAGE);
  const match = page.find(({ topic }) => topicMatches(filter, topic));
  if (match) return { offset: match.offset, message: tables.at(match.offset) };
  return { offset: page.length < PAGE ? upTo : (page.at(-1)?.offset ?? upTo) };
}
