import type { StateChange, WatchQuery } from "../../core/index.js";
import { entryOf, isLive } from "../kit/state-plan.js";
import type { Tables } from "./tables.js";

/** Those who wait for changes. They are woken here, and read what has changed from the tables. */
export interface Watches {
  /** Something has changed in this namespace. */
  wake(name: string): void;
  /** It was dropped: its watches end. */
  end(name: string): void;
  /** All wake, and find the store closed. */
  wakeAll(): void;
  changes(name: string, query: WatchQuery): AsyncGenerator<StateChange>;
}

/** Versions that are looked up at a time. Values are read when it is their turn. */
const PAGE = 256;

type Gap = Extract<StateChange, { type: "gap" }>;

interface Watch {
  over: boolean;
  wake: () => void;
}

/** `read` throws `state_unavailable` for whatever goes wrong, also when the store is not open. */
export function createWatches(read: <T>(act: (tables: Tables) => T) => T, nowMs: () => number): Watches {
  const watches = new Map<string, Set<Watch>>();

  const register = (name: string, watch: Watch) => {
    const all = watches.get(name) ?? new Set();
    watches.set(name, all.add(watch));
  };
  const unregister = (name: string, watch: Watch) => {
    const all = watches.get(name);
    all?.delete(watch);
    if (all?.size === 0) watches.delete(name);
  };

  async function* changes(name: string, query: WatchQuery): AsyncGenerator<StateChange> {
    const { signal } = query;
    const watch: Watch = { over: signal.aborted, wake: () => {} };
    const abort = () => {
      watch.over = true;
      watch.wake();
    };
    let seen = query.after ?? read((tables) => tables.space(name)?.version ?? 0);
    register(name, watch);
    signal.addEventListener("abort", abort);
    try {
      while (!watch.over) {
        const woken = new Promise<void>((resolve) => {
          watch.wake = resolve;
        });
        const gap: Gap | undefined = read((tables) => gapAfter(tables, name, seen));
        if (gap) {
          seen = gap.version;
          yield gap;
        }
        const page: number[] = read((tables) => versionsAfter(tables, name, seen));
        for (const version of page) {
          if (watch.over) return;
          const change = read((tables) => changeAt(tables, name, version, nowMs()));
          seen = version;
          if (change && keyOf(change).startsWith(query.prefix ?? "")) yield change;
        }
        // One that reads a great deal lets others have their turn.
        await (page.length === 0 ? woken : new Promise(setImmediate));
      }
    } finally {
      unregister(name, watch);
      signal.removeEventListener("abort", abort);
    }
  }

  const each = (name: string, act: (watch: Watch) => void) => {
    for (const watch of watches.get(name) ?? []) act(watch);
  };
  return {
    wake: (name) => each(name, ({ wake }) => wake()),
    end: (name) =>
      each(name, (watch) => {
        watch.over = true;
        watch.wake();
      }),
    wakeAll() {
      for (const name of watches.keys()) each(name, ({ wake }) => wake());
    },
    changes,
  };
}

/**
 * Who has seen nothing has missed no deletion. A version that is still to come is one of an earlier
 * namespace of this name.
 */
function gapAfter(tables: Tables, name: string, seen: number): Gap | undefined {
  const { version, pruned } = tables.space(name) ?? { version: 0, pruned: 0 };
  if (seen > version) return { type: "gap", version };
  return seen > 0 && seen < pruned ? { type: "gap", version: pruned } : undefined;
}

function versionsAfter(tables: Tables, name: string, seen: number): number[] {
  const space = tables.space(name);
  return space ? tables.changedAfter(space, seen, PAGE) : [];
}

/** `undefined` for what has been overwritten, and has its turn further on. */
function changeAt(tables: Tables, name: string, version: number, nowMs: number): StateChange | undefined {
  const space = tables.space(name);
  const row = space && tables.atVersion(space, version);
  if (!row) return undefined;
  if (row.json === undefined) return { type: "delete", key: row.key, version };
  // One whose time is over is told as deleted when it has been cleared away.
  return isLive(row, nowMs) ? { type: "put", entry: entryOf(row) } : undefined;
}

function keyOf(change: StateChange): string {
  if (change.type === "put") return change.entry.key;
  return change.type === "delete" ? change.key : "";
}
