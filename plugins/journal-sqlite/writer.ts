import { type Clock, type DaemonEvent, errorText } from "../../core/index.js";
import { unavailable } from "../kit/sqlite/failures.js";
import type { EncodedBatch } from "./encode.js";
import { journalFile } from "./journal-file.js";
import type { SecretFiles } from "./secret-files.js";
import type { Tables } from "./tables.js";

export interface WriterOptions {
  clock: Pick<Clock, "now">;
  /** How many events are kept at least. */
  maxEvents: number;
  /** Told once when the journal cannot be written, and with `undefined` once it can again. */
  onProblem?: (problem: string | undefined) => void;
}

/** Events are pruned so many at a time, or an eighth of what is kept where that is less. */
const PRUNE_CHUNK = 128;

/** What one group commit does: the transaction, then what follows from it. `ready` answers where to. */
export function createWriter(
  ready: () => Tables,
  secrets: SecretFiles,
  options: WriterOptions,
  onWritten: (lastEventId: number) => void,
): (batches: readonly EncodedBatch[]) => DaemonEvent[][] {
  const chunk = Math.max(1, Math.min(PRUNE_CHUNK, Math.floor(options.maxEvents / 8)));
  let prunedThrough = 0;
  let failing = false;
  // Transitions only: being told may itself lead to an append.
  const report = (problem: string | undefined) => {
    if (failing === (problem !== undefined)) return;
    failing = problem !== undefined;
    options.onProblem?.(problem);
  };

  /** The batches are durable: nothing here may make them look as if they were not. */
  const clearUp = (tables: Tables, batches: readonly EncodedBatch[], last: number) => {
    try {
      for (const batch of batches) for (const agentId of batch.forget) secrets.remove(agentId);
      if (last - options.maxEvents - prunedThrough >= chunk) {
        prunedThrough = last - options.maxEvents;
        tables.prune(prunedThrough, options.clock.now());
      }
      report(undefined);
    } catch (error) {
      report(`clearing up failed: ${errorText(error)}`);
    }
  };

  return (batches) => {
    try {
      const tables = unavailable(journalFile, `${journalFile.fileName} could not be put back`, ready);
      const numbered = unavailable(journalFile, `${journalFile.fileName} could not be written`, () =>
        tables.write(batches),
      );
      const last = numbered.flat().at(-1)?.id ?? 0;
      if (last > 0) onWritten(last);
      clearUp(tables, batches, last);
      return numbered;
    } catch (error) {
      // Without a cause the journal is sound and refused this one batch. A group is tried again in parts.
      if (batches.length === 1 && (error as Error).cause !== undefined) report(errorText(error));
      throw error;
    }
  };
}
