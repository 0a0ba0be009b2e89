import type { Clock, OpenStarryError, StateChange, WatchQuery } from "../../core/index.js";
import type { Change, ChangePage, Commands } from "./commands.js";
import { entryOf } from "./rows.js";

/** The watches of this daemon. The server's notifications wake them, and they read what has changed. */
export interface Watches {
  /** Handles a notification on the store's channel. */
  onNotification(text: string): void;
  /** Ends all watches with an error, since notifications may have been lost. */
  failAll(error: OpenStarryError): void;
  watch(name: string, query: WatchQuery): AsyncGenerator<StateChange>;
}

/** How old a page may be before a slow reader's watch reads it again, to yield the latest values. */
const FRESH_MS = 100;

interface Watch {
  isOver: boolean;
  failure?: OpenStarryError;
  wake: () => void;
}

/** Creates the watches. `read` calls the commands at once, and rejects only with `state_unavailable`. */
export function createWatches(
  read: <T>(act: (commands: Commands) => Promise<T>) => Promise<T>,
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

  async function* watch(name: string, query: WatchQuery): AsyncGenerator<StateChange> {
    const { signal, prefix = "", after } = query;
    const self: Watch = { isOver: signal.aborted, wake: () => {} };
    const end = () => {
      self.isOver = true;
      self.wake();
    };
    const continues = () => {
      if (self.failure && !self.isOver) throw self.failure;
      return !self.isOver;
    };
    register(name, self);
    signal.addEventListener("abort", end);
    try {
      let seen = after ?? (await read((commands) => commands.version(name)));
      while (continues()) {
        // Before the page is read, so that no notification is missed.
        const woken = new Promise<void>((resolve) => {
          self.wake = resolve;
        });
        const page = await read((commands) => commands.changes(name, seen, prefix));
        const readAt = clock.monotonic();
        const gap = gapAfter(page, seen);
        if (gap !== undefined) {
          seen = gap;
          if (continues()) yield { type: "gap", version: gap };
          continue;
        }
        const isFresh = () => clock.monotonic() - readAt < FRESH_MS;
        for (const change of page.changes) {
          if (!continues()) return;
          if (change !== page.changes[0] && !isFresh()) break;
          seen = change.version;
          yield toStateChange(change);
        }
        if (seen < (page.changes.at(-1)?.version ?? 0)) continue;
        seen = page.searchedUpTo;
        if (!page.more) await woken;
      }
    } catch (error) {
      // An error after the signal is of no interest any more.
      if (!self.isOver) throw error;
    } finally {
      unregister(name, self);
      signal.removeEventListener("abort", end);
    }
  }

  const updateAll = (name: string, act: (watch: Watch) => void) => {
    for (const watch of watches.get(name) ?? []) {
      act(watch);
      watch.wake();
    }
  };
  return {
    onNotification(text) {
      const isDropped = text.startsWith("-");
      updateAll(text.slice(1), (watch) => {
        watch.isOver ||= isDropped;
      });
    },
    failAll(error) {
      for (const name of watches.keys()) {
        updateAll(name, (watch) => {
          watch.failure = error;
        });
      }
    },
    watch,
  };
}

/**
 * Returns the version after which to continue when changes may have been missed. A watch from the beginning misses no
 * deletion. A version above the current one belongs to an earlier namespace of the same name.
 */
function gapAfter({ version, pruned }: ChangePage, seen: number): number | undefined {
  if (seen > version) return version;
  return seen > 0 && seen < pruned ? pruned : undefined;
}

function toStateChange({ version, key, row }: Change): StateChange {
  return row ? { type: "put", entry: entryOf(key, row) } : { type: "delete", key, version };
}
