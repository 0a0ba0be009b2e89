import type { Clock, StateChange, WatchQuery } from "../../core/index.js";
import { entryOf, type Row } from "../kit/state-plan.js";
import type { Database } from "./database.js";
import {
  type ChangesPage,
  type NamespaceRow,
  namespaceRowOf,
  pageOf,
  type Statements,
  textOf,
} from "./statements.js";
import type { Row as Columns } from "./transaction.js";
import type { WriteQueue } from "./write-queue.js";

/** Those who wait for changes. They are woken here, and read what has changed by its version. */
export interface Watches {
  /** Something may have changed in this namespace. */
  wake(name: string): void;
  /** It was dropped: its watches end. */
  end(name: string): void;
  /** All wake, and find the store away. */
  wakeAll(): void;
  /** Looks whether anything has changed that nobody told of. */
  look(): Promise<void>;
  changes(name: string, query: WatchQuery): AsyncGenerator<StateChange>;
}

interface Watch {
  over: boolean;
  /** As it was read last. */
  space: NamespaceRow | undefined;
  wake: () => void;
}

/** What was read waits no longer than this for its turn once there are changes: then it is read anew. */
const FRESH_MS = 100;

export function createWatches(
  database: Database,
  statements: Statements,
  queue: WriteQueue,
  clock: Pick<Clock, "monotonic">,
): Watches {
  const watches = new Map<string, Set<Watch>>();
  /** Reads under way, by namespace: those who ask the same at the same time share one. */
  const reads = new Map<string, Map<string, Promise<ChangesPage>>>();

  function read(name: string, version: number, prefix: string): Promise<ChangesPage> {
    const ofName = reads.get(name) ?? new Map<string, Promise<ChangesPage>>();
    reads.set(name, ofName);
    const what = `${version} ${prefix}`;
    const known = ofName.get(what);
    if (known) return known;
    const page = database.query(statements.changes(name, version, prefix)).then(pageOf);
    ofName.set(what, page);
    const forget = () => {
      ofName.delete(what);
      if (ofName.size === 0 && reads.get(name) === ofName) reads.delete(name);
    };
    page.then(forget, forget);
    return page;
  }

  const each = (name: string, act: (watch: Watch) => void) => {
    // One that was begun before does not have to hold the change.
    reads.delete(name);
    for (const watch of watches.get(name) ?? []) act(watch);
  };
  const end = (watch: Watch) => {
    watch.over = true;
    watch.wake();
  };

  async function* changes(name: string, query: WatchQuery): AsyncGenerator<StateChange> {
    const { signal, prefix = "" } = query;
    if (signal.aborted) return;
    const watch: Watch = { over: false, space: undefined, wake: () => {} };
    const abort = () => end(watch);
    register(name, watch);
    signal.addEventListener("abort", abort);
    try {
      let seen = query.after ?? (await begin(name, watch));
      while (!watch.over) {
        let isWoken = false;
        const woken = new Promise<void>((resolve) => {
          watch.wake = () => {
            isWoken = true;
            resolve();
          };
        });
        const readAt = clock.monotonic();
        const page = await read(name, seen, prefix);
        if (watch.over || (watch.space && watch.space.id !== page.space?.id)) return;
        watch.space = page.space;
        const gap = gapAfter(page, seen);
        if (gap !== undefined) {
          seen = gap;
          yield { type: "gap", version: gap };
          continue;
        }
        for (const { row, isTold } of page.changes) {
          if (watch.over) return;
          // What was overwritten before its turn is left out.
          if (isWoken && clock.monotonic() - readAt > FRESH_MS) break;
          seen = row.version;
          if (isTold) yield changeOf(row);
        }
        if (page.changes.length === 0 || seen >= (page.space?.version ?? 0)) await woken;
      }
    } finally {
      unregister(name, watch);
      signal.removeEventListener("abort", abort);
    }
  }

  /** The version from now on: what this daemon writes later waits until it is known. */
  function begin(name: string, watch: Watch): Promise<number> {
    return queue.run(name, async () => {
      const [found] = await database.query(statements.space(name));
      watch.space = found && namespaceRowOf(found);
      return watch.space?.version ?? 0;
    });
  }

  function register(name: string, watch: Watch): void {
    watches.set(name, (watches.get(name) ?? new Set()).add(watch));
  }

  function unregister(name: string, watch: Watch): void {
    const all = watches.get(name);
    all?.delete(watch);
    if (all?.size === 0) watches.delete(name);
  }

  const wakeIfChanged = (watch: Watch, now: NamespaceRow | undefined) => {
    if (watch.space?.id !== now?.id || watch.space?.version !== now?.version) watch.wake();
  };

  return {
    wake: (name) => each(name, (watch) => watch.wake()),
    end: (name) => each(name, end),
    wakeAll() {
      for (const name of watches.keys()) each(name, (watch) => watch.wake());
    },
    async look() {
      if (watches.size === 0) return;
      const found = await database.query(statements.spaces([...watches.keys()]));
      const spaces = new Map(found.map((row: Columns) => [textOf(row["name"]), namespaceRowOf(row)]));
      for (const name of watches.keys()) each(name, (watch) => wakeIfChanged(watch, spaces.get(name)));
    },
    changes,
  };
}

/**
 * Up to where deletions are not known any more. Who has seen nothing has missed none. A version that is still to
 * come is one of an earlier namespace of this name.
 */
function gapAfter({ space }: ChangesPage, seen: number): number | undefined {
  const { version, pruned } = space ?? { version: 0, pruned: 0 };
  if (seen > version) return version;
  return seen > 0 && seen < pruned ? pruned : undefined;
}

function changeOf(row: Row): StateChange {
  if (row.json === undefined) return { type: "delete", key: row.key, version: row.version };
  return { type: "put", entry: entryOf(row) };
}
