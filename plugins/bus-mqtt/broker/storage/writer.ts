import { type BusMessage, errorText } from "../../../../core/index.js";
import { bytesOf } from "../../../kit/bus/recent-messages.js";
import type { ConsumerGroupId, ConsumerGroupUpdate } from "../../../kit/bus/storage.js";
import { unavailable } from "../../../kit/sqlite/failures.js";
import { topicMatches } from "../../../kit/topics.js";
import { busFile } from "./bus-file.js";
import type { Tables, Totals } from "./tables.js";

export type Change =
  | { type: "append"; offset: number; message: BusMessage }
  | { type: "drop"; filter: string }
  | { type: "saveGroup"; id: ConsumerGroupId; update: ConsumerGroupUpdate }
  | { type: "removeGroup"; id: ConsumerGroupId };

export interface WriterOptions {
  /** Returns the tables, ready to be written. */
  ready: () => Tables;
  /** What the file holds at the start. */
  totals: Totals;
  maxMessages: number;
  maxBytes: number;
  nowMs: () => number;
  /** Called when changes are in the file, with what it holds then. */
  onWritten: (changes: readonly Change[], totals: Totals) => void;
  /** Called once when the file cannot be written, and with `undefined` once it can be again. */
  onProblem: (problem: string | undefined) => void;
}

/** How many of the oldest messages one step of eviction looks at. */
const PAGE = 256;
/** How many messages one commit may evict at least, however few it adds. */
const MIN_EVICTION = 1_000;

/** Creates the function that writes a batch: all changes in one transaction, with eviction of the oldest messages. */
export function createWriter(options: WriterOptions): (changes: readonly Change[]) => undefined[] {
  const { ready, maxMessages, maxBytes, nowMs, onWritten, onProblem } = options;
  let totals = options.totals;
  let isFailing = false;
  const report = (problem: string | undefined) => {
    if (isFailing === (problem !== undefined)) return;
    isFailing = problem !== undefined;
    onProblem(problem);
  };

  function apply(tables: Tables, kept: Totals, change: Change): void {
    switch (change.type) {
      case "append": {
        const size = bytesOf(change.message);
        tables.append(change.offset, change.message, size);
        kept.messages += 1;
        kept.bytes += size;
        break;
      }
      case "drop":
        drop(tables, kept, change.filter);
        break;
      case "saveGroup":
        tables.saveGroup(change.id, change.update, nowMs());
        break;
      case "removeGroup":
        tables.removeGroup(change.id.id);
    }
  }

  /** Removes the oldest messages above the limits, but never the newest. */
  function evict(tables: Tables, kept: Totals, atMost: number): void {
    const isOver = () => kept.messages > 1 && (kept.messages > maxMessages || kept.bytes > maxBytes);
    for (let left = atMost; left > 0 && isOver(); left -= PAGE) {
      let upTo = 0;
      for (const { offset, size } of tables.oldest(PAGE)) {
        if (!isOver()) break;
        kept.messages -= 1;
        kept.bytes -= size;
        upTo = offset;
      }
      tables.removeUpTo(upTo);
    }
  }

  return (changes) => {
    const kept = { ...totals };
    try {
      const tables = unavailable(busFile, `cannot restore ${busFile.fileName}`, ready);
      unavailable(busFile, `cannot write ${busFile.fileName}`, () =>
        tables.transaction(() => {
          for (const change of changes) apply(tables, kept, change);
          evict(tables, kept, Math.max(MIN_EVICTION, 2 * changes.length));
          if (kept.messages !== totals.messages || kept.bytes !== totals.bytes) tables.setTotals(kept);
        }),
      );
    } catch (error) {
      // A batch that failed is tried again one change at a time; only that decides.
      if (changes.length === 1) report(errorText(error));
      throw error;
    }
    totals = kept;
    onWritten(changes, totals);
    report(undefined);
    return changes.map(() => undefined);
  };
}

function drop(tables: Tables, kept: Totals, filter: string): void {
  const literal = filter.split(/\/?[+#]/)[0] ?? "";
  for (const topic of tables.topicsWithPrefix(literal)) {
    if (!topicMatches(filter, topic)) continue;
    const { messages, bytes } = tables.totalsOfTopic(topic);
    tables.removeTopic(topic);
    kept.messages -= messages;
    kept.bytes -= bytes;
  }
}
