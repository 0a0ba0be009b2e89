import type { Clock } from "../../core/index.js";
import type { Database } from "./database.js";
import { STEP, type Statements, textOf } from "./statements.js";
import type { Watches } from "./watches.js";
import type { WriteQueue } from "./write-queue.js";

export interface UpkeepOptions {
  database: Database;
  statements: Statements;
  queue: WriteQueue;
  watches: Watches;
  clock: Pick<Clock, "after">;
  maxDeletions: number;
}

/** How often it is seen to, and how soon again while there is more to do. */
const ROUND_MS = 1_000;
const GO_ON_MS = 20;

/**
 * Every now and then, a bit of each: turns entries whose time is over into deletions, forgets deletions that are too
 * many and rows of namespaces that were dropped, and looks for changes that no hint told of. Several daemons may do so
 * at the same time.
 */
export function createUpkeep({ database, statements, queue, watches, clock, maxDeletions }: UpkeepOptions) {
  /** Namespaces with deletions that were not counted yet. */
  const uncounted = new Set<string>();
  let cancel = () => {};
  let isOver = true;

  async function expire(): Promise<boolean> {
    const found = await database.query(statements.expired());
    const keys = new Map<string, string[]>();
    for (const { name, key } of found) {
      const ofName = keys.get(textOf(name)) ?? [];
      ofName.push(textOf(key));
      keys.set(textOf(name), ofName);
    }
    for (const [name, ofName] of keys) await queue.expire(name, ofName);
    return found.length === STEP;
  }

  async function prune(): Promise<boolean> {
    for (const name of [...uncounted]) {
      uncounted.delete(name);
      if (await queue.prune(name, maxDeletions)) uncounted.add(name);
    }
    return uncounted.size > 0;
  }

  async function clear(): Promise<boolean> {
    const gone = await database.query(statements.clear());
    if (gone.length < STEP) await database.query(statements.removeEmpty());
    return gone.length === STEP;
  }

  async function round(): Promise<void> {
    let more = false;
    try {
      if (database.problem() === undefined) {
        await watches.look();
        more = [await expire(), await prune(), await clear()].includes(true);
      }
    } catch {
      // The next round tries again; that the server is away, others tell.
    }
    if (!isOver) cancel = clock.after(more ? GO_ON_MS : ROUND_MS, () => void round());
  }

  return {
    /** There are new deletions in this namespace. */
    count: (name: string) => void uncounted.add(name),
    start() {
      if (!isOver) return;
      isOver = false;
      cancel = clock.after(ROUND_MS, () => void round());
    },
    stop() {
      isOver = true;
      cancel();
    },
  };
}
