import type { Clock, OpenStarryError, StateChange, WatchQuery } from "../../core/index.js";
import { entryOf } from "./rows.js";
import type { Change, Changes, Tables } from "./tables.js";

/** Those who wait for changes. They are woken by the server's notices, and read what has changed. */
export interface Watches {
  /** A notice of the tables' channel. */
  notice(text: string): void;
  /** Notices may have been missed: all reject. */
  failAll(error: OpenStarryError): void;
  changes(name: string, query: WatchQuery): AsyncGenerator<StateChange>;
}

/** What was read so long ago may have changed: it is read again, for one who reads slowly. */
const FRESH_MS = 100;

interface Watch {
  over: boolean;
  failed?: OpenStarryError;
  wake: () => void;
}

/** `read` rejects with `state_unavailable` for whatever goes wrong. What it is to do is sent when it is called. */
export function createWatches(
  read: <T>(act: (tables: Tables) => Promise<T>) => Promise<T>,
  clock: Pick<Clock, "monotonic">,
): Watches {
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
    const { signal, prefix = "", after } = query;
    const watch: Watch = { over: signal.aborted, wake: () => {} };
    const end = () => {
      watch.over = true;
      watch.wake();
    };
    const goesOn = () => {
      if (watch.failed && !watch.over) throw watch.failed;
      return !watch.over;
    };
    register(name, watch);
    signal.addEventListener("abort", end);
    try {
      let seen = after ?? (await read((tables) => tables.version(name)));
      while (goesOn()) {
        const woken = new Promise<void>((resolve) => {
          watch.wake = resolve;
        });
        const page: Changes = await read((tables) => tables.changes(name, seen, prefix));
        const readAt = clock.monotonic();
        const gap = gapAfter(page, seen);
        if (gap !== undefined) {
          seen = gap;
          if (goesOn()) yield { type: "gap", version: gap };
          continue;
        }
        const isFresh = () => clock.monotonic() - readAt < FRESH_MS;
        for (const change of page.changes) {
          if (!goesOn()) return;
          if (change !== page.changes[0] && !isFresh()) break;
          seen = change.version;
          yield told(change);
        }
        if (seen < (page.changes.at(-1)?.version ?? 0)) continue;
        seen = page.seen;
        if (!page.more) await woken;
      }
    } catch (error) {
      // One that was told to end has nothing to fail at any more.
      if (!watch.over) throw error;
    } finally {
      unregister(name, watch);
      signal.removeEventListener("abort", end);
    }
  }

  const each = (name: string, act: (watch: Watch) => void) => {
    for (const watch of watches.get(name) ?? []) {
      act(watch);
      watch.wake();
    }
  };
  return {
    notice(text) {
      const dropped = text.startsWith("-");
      each(text.slice(1), (watch) => {
        watch.over ||= dropped;
      });
    },
    failAll(error) {
      for (const name of watches.keys()) {
        each(name, (watch) => {
          watch.failed = error;
        });
      }
    },
    changes,
  };
}

/**
 * Who has seen nothing has missed no deletion. A version that is still to come is one of an earlier
 * namespace of this name.
 */
function gapAfter({ version, pruned }: Changes, seen: number): number | undefined {
  if (seen > version) return version;
  return seen > 0 && seen < pruned ? pruned : undefined;
}

function told({ version, key, row }: Change): StateChange {
  return row ? { type: "put", entry: entryOf(key, row) } : { type: "delete", key, version };
}
