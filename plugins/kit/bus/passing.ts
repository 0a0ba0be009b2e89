import type { BusMessage } from "../../../core/index.js";
import { bytesOf } from "./recent-messages.js";

/** A message that is not kept, behind the kept ones up to a position. */
export interface Passing {
  readonly message: BusMessage;
  readonly behind: number;
  /** How many readers it waits for. */
  readers: number;
}

/** What waits for one reader, the oldest first. */
export interface Backlog {
  readonly waiting: Passing[];
  bytes: number;
}

/** So many wait for one slow reader; then the oldest are lost to it. */
const MAX_OF_ONE = 1_000;
const MAX_BYTES_OF_ONE = 4 * 2 ** 20;
/** And for all of them together: however many they are, they fill no memory. */
const MAX_OF_ALL = 50_000;
const MAX_BYTES_OF_ALL = 64 * 2 ** 20;

/** Messages that are not kept, until their readers come to them. One that waits for many is held once. */
export function createPassing() {
  /** Who has something waiting; first who has taken nothing for longest. */
  const backlogs = new Set<Backlog>();
  let count = 0;
  let bytes = 0;

  function shift(backlog: Backlog): Passing | undefined {
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
    add(backlog: Backlog, passing: Passing): void {
      const size = bytesOf(passing.message);
      if (passing.readers === 0) bytes += size;
      passing.readers += 1;
      count += 1;
      backlog.bytes += size;
      backlog.waiting.push(passing);
      backlogs.add(backlog);
      while (backlog.waiting.length > MAX_OF_ONE || backlog.bytes > MAX_BYTES_OF_ONE) shift(backlog);
      for (const slowest of backlogs) {
        while ((count > MAX_OF_ALL || bytes > MAX_BYTES_OF_ALL) && shift(slowest));
        if (count <= MAX_OF_ALL && bytes <= MAX_BYTES_OF_ALL) break;
      }
    },
    take(backlog: Backlog): BusMessage | undefined {
      const first = shift(backlog);
      if (backlogs.delete(backlog)) backlogs.add(backlog);
      return first?.message;
    },
    /** Nobody reads it any more. */
    forget(backlog: Backlog): void {
      while (shift(backlog));
    },
  };
}
