import {
  type Clock,
  errorText,
  isOpenStarryError,
  type OpenStarryError,
  type StateEntry,
} from "../../core/index.js";
import { unavailable } from "../kit/sqlite/failures.js";
import { type EncodedWrite, type Plan, planWrite } from "../kit/state-plan.js";
import { stateFile } from "./state-file.js";
import type { NamespaceRow, Tables } from "./tables.js";

export interface Batch {
  name: string;
  writes: readonly EncodedWrite[];
}

/** What became of one batch: its answers, or why it was refused while others of its group were not. */
export type Outcome = { answers: (StateEntry | undefined)[] } | { refused: OpenStarryError };

export interface WriterOptions {
  clock: Pick<Clock, "now" | "after">;
  /** How many deletions of each namespace are kept for watches that resume. */
  maxDeletions: number;
  /** Told once when the store cannot be written, and with `undefined` once it can again. */
  onProblem?: ((problem: string | undefined) => void) | undefined;
}

export interface Writer {
  /** What one group commit does: a transaction, in which a conflict is the conflict of one batch. */
  write(batches: readonly Batch[]): Outcome[];
  drop(name: string): void;
  /**
   * Turns entries whose time is over into deletions, and forgets what is not needed any more: a bit of each.
   * Answers whether there is more to do.
   */
  clearUp(): boolean;
}

const CLEAR_UP_ROWS = 1_000;

/** `ready` answers where to write; `onChange` is told whose namespaces have changed. */
export function createWriter(
  ready: () => Tables,
  options: WriterOptions,
  onChange: (name: string) => void,
): Writer {
  const { clock, maxDeletions, onProblem } = options;
  /** Namespaces with deletions that were not counted yet. */
  const uncounted = new Set<string>();
  let failing = false;
  // Transitions only.
  const report = (problem: string | undefined) => {
    if (failing === (problem !== undefined)) return;
    failing = problem !== undefined;
    onProblem?.(problem);
  };

  const look = <T>(act: (tables: Tables) => T): T =>
    unavailable(stateFile, `${stateFile.fileName} could not be read`, () => act(ready()));

  /** All of `act` in one transaction, or nothing of it and `state_unavailable`. */
  function commit<T>(act: (tables: Tables) => T, isLast = true): T {
    try {
      const tables = unavailable(stateFile, `${stateFile.fileName} could not be put back`, ready);
      const done = unavailable(stateFile, `${stateFile.fileName} could not be written`, () =>
        tables.transaction(() => act(tables)),
      );
      report(undefined);
      return done;
    } catch (error) {
      if (isLast) report(errorText(error));
      throw error;
    }
  }

  function writeOne(tables: Tables, { name, writes }: Batch): Outcome {
    const known = tables.space(name);
    const find = (key: string) => known && tables.row(known, key);
    const version = known?.version ?? tables.initialVersion();
    try {
      const plan = planWrite(writes, { version, find, nowMs: clock.now() });
      if (plan.rows.size > 0) keep(tables, known ?? tables.addSpace(name), plan);
      return { answers: plan.answers };
    } catch (error) {
      // It is found before anything is changed.
      if (isOpenStarryError(error) && error.code === "state_conflict") return { refused: error };
      throw error;
    }
  }

  function keep(
    tables: Tables,
    space: NamespaceRow,
    { rows, version }: Pick<Plan, "rows" | "version">,
  ): void {
    for (const row of rows.values()) {
      tables.put(space, row);
      if (row.json === undefined) uncounted.add(space.name);
    }
    tables.setVersion(space, version);
  }

  /** Each of these entries becomes a deletion, as if somebody had asked for it. */
  function expire(tables: Tables, entries: readonly { name: string; key: string }[]): void {
    const updatedAtMs = clock.now();
    for (const { name, key } of entries) {
      const space = tables.space(name);
      if (!space) continue;
      const version = space.version + 1;
      keep(tables, space, { rows: new Map([[key, { key, version, updatedAtMs }]]), version });
    }
  }

  return {
    write(batches) {
      // A group that failed is tried again in parts.
      const outcomes = commit((tables) => batches.map((it) => writeOne(tables, it)), batches.length === 1);
      for (const name of new Set(batches.map((it) => it.name))) onChange(name);
      return outcomes;
    },
    drop(name) {
      commit((tables) => tables.drop(name));
      uncounted.delete(name);
    },
    clearUp() {
      const { expired, dropped } = look((tables) => ({
        expired: tables.expired(clock.now(), CLEAR_UP_ROWS),
        dropped: tables.dropped(),
      }));
      if (expired.length > 0) commit((tables) => expire(tables, expired));
      for (const name of new Set(expired.map((it) => it.name))) onChange(name);
      if (uncounted.size > 0) {
        commit((tables) => {
          for (const name of uncounted) tables.prune(name, maxDeletions);
        });
        uncounted.clear();
      }
      if (dropped !== undefined) commit((tables) => tables.clear(dropped, CLEAR_UP_ROWS));
      return dropped !== undefined || expired.length === CLEAR_UP_ROWS;
    },
  };
}
