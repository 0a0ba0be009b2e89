import type { BusMessage } from "../../../core/index.js";
import { bytesOf } from "./recent-messages.js";

/** A message with `keep: false`. */
export interface TransientMessage {
  readonly message: BusMessage;
  /** Its place in the order: behind the kept messages up to this offset. */
  readonly afterOffset: number;
  /** In how many backlogs it waits. */
  readers: number;
}

/** The transient messages that wait for one reader, the oldest first. */
export interface Backlog {
  readonly waiting: TransientMessage[];
  bytes: number;
}

export const createBacklog = (): Backlog => ({ waiting: [], bytes: 0 });

/** Limits of one backlog. Above them, the reader loses its oldest messages. */
const MAX_MESSAGES_PER_READER = 1_000;
const MAX_BYTES_PER_READER = 4 * 2 ** 20;
/** Limits of all backlogs together, so that memory stays bounded with any number of readers. */
const MAX_MESSAGES = 50_000;
const MAX_BYTES = 64 * 2 ** 20;

/** Creates the buffer of transient messages for slow readers. A message that waits for many readers is held once. */
export function createTransientMessages() {
  /** The backlogs that are not empty; the one that was not read from for the longest time comes first. */
  const backlogs = new Set<Backlog>();
  let count = 0;
  let bytes = 0;

  function shift(backlog: Backlog): TransientMessage | undefined {
    const first = backlog.waiting.shift();
    if (!first) return undefined;
    const size = bytesOf(first.message);
    count -= 1;
    backlog.bytes -= size;
    first.readers -= 1;
    if (first.readers === 0) bytes -= size;
    if (backlog.waiting.length === 0) backlogs.delete(backlog);
    return first;
  }

  return {
    add(backlog: Backlog, added: TransientMessage): void {
      const size = bytesOf(added.message);
      if (added.readers === 0) bytes += size;
      added.readers += 1;
      count += 1;
      backlog.bytes += size;
      backlog.waiting.push(added);
      backlogs.add(backlog);
      while (backlog.waiting.length > MAX_MESSAGES_PER_READER || backlog.bytes > MAX_BYTES_PER_READER) {
        shift(backlog);
      }
      for (const slowest of backlogs) {
        while ((count > MAX_MESSAGES || bytes > MAX_BYTES) && shift(slowest));
        if (count <= MAX_MESSAGES && bytes <= MAX_BYTES) break;
      }
    },
    take(backlog: Backlog): BusMessage | undefined {
      const first = shift(backlog);
      // The reader has just read: its backlog moves to the end.
      if (backlogs.delete(backlog)) backlogs.add(backlog);
      return first?.message;
    },
    clear(backlog: Backlog): void {
      while (shift(backlog));
    },
  };
}
