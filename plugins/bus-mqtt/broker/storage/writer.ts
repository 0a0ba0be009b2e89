import type { BusMessage } from "../../../../core/index.js";
import { bytesOf } from "../../../kit/bus/recent-messages.js";
import type { GroupChange, GroupName } from "../../../kit/bus/storage.js";
import { messageOf, unavailable } from "../../../kit/sqlite/failures.js";
import { topicMatches } from "../../../kit/topics.js";
import { busFile } from "./bus-file.js";
import type { Tables, Totals } from "./tables.js";

export type Change =
  | { type: "append"; position: number; message: BusMessage }
  | { type: "drop"; filter: string }
  | { type: "save"; group: GroupName; change: GroupChange }
  | { type: "remove"; group: GroupName };

export interface WriterOptions {
  /** Where to write. */
  ready: () => Tables;
  /** What is kept now. */
  totals: Totals;
  maxMessages: number;
  maxBytes: number;
  nowMs: () => number;
  /** These stand in the file, and so much is kept now. */
  onWritten: (changes: readonly Change[], totals: Totals) => void;
  /** Told once when the file cannot be written, and with `undefined` once it can again. */
  onProblem: (problem: string | undefined) => void;
}

/** So many of the oldest messages are looked at in one go when room is made. */
const PAGE = 256;
/** So many are removed at least by one commit that has to. */
const STEP = 1_000;

/** What one group commit does: all changes in one transaction, and room for what was added. */
export function createWriter(options: WriterOptions): (changes: readonly Change[]) => undefined[] {
  const { ready, maxMessages, maxBytes, nowMs, onWritten, onProblem } = options;
  let totals = options.totals;
  let failing = false;
  // Transitions only.
  const report = (problem: string | undefined) => {
    if (failing === (problem !== undefined)) return;
    failing = problem !== undefined;
    onProblem(problem);
  };

  function apply(tables: Tables, kept: Totals, change: Change): void {
    switch (change.type) {
      case "append": {
        const size = bytesOf(change.message);
        tables.append(change.position, change.message, size);
        kept.messages += 1;
        kept.bytes += size;
        break;
      }
      case "drop":
        drop(tables, kept, change.filter);
        break;
      case "save":
        tables.saveGroup(change.group, change.change, nowMs());
        break;
      case "remove":
        tables.removeGroup(change.group.id);
    }
  }

  /** The oldest go, in steps; the newest always stays. */
  function makeRoom(tables: Tables, kept: Totals, atMost: number): void {
    const isOver = () => kept.messages > 1 && (kept.messages > maxMessages || kept.bytes > maxBytes);
    for (let left = atMost; left > 0 && isOver(); left -= PAGE) {
      let upTo = 0;
      for (const { position, size } of tables.oldest(PAGE)) {
        if (!isOver()) break;
        kept.messages -= 1;
        kept.bytes -= size;
        upTo = position;
      }
      tables.removeUpTo(upTo);
    }
  }

  return (changes) => {
    const kept = { ...totals };
    try {
      const tables = unavailable(busFile, `${busFile.fileName} could not be put back`, ready);
      unavailable(busFile, `${busFile.fileName} could not be written`, () =>
        tables.transaction(() => {
          for (const change of changes) apply(tables, kept, change);
          makeRoom(tables, kept, Math.max(STEP, 2 * changes.length));
          if (kept.messages !== totals.messages || kept.bytes !== totals.bytes) tables.setTotals(kept);
        }),
      );
    } catch (error) {
      // A group that failed is tried again in parts.
      if (changes.length === 1) report(messageOf(error));
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
  for (const topic of tables.topicsUnder(literal)) {
    if (!topicMatches(filter, topic)) continue;
    const { messages, bytes } = tables.sizeOf(topic);
    tables.removeTopic(topic);
    kept.messages -= messages;
    kept.bytes -= bytes;
  }
}
