import { defineSlot } from "../slots.js";

/** One value of the state store. */
export interface StateEntry {
  key: string;
  /** JSON. */
  value: unknown;
  /** Rises with every change in its namespace, a deletion included; unique in it. From 1. */
  version: number;
  /** RFC 3339, UTC. */
  updated_at: string;
  /** After it the entry is gone, whoever looks. Absent: it stays. */
  expires_at?: string;
}

/** A change, in the order of `version`. */
export type StateChange =
  | { type: "put"; entry: StateEntry }
  | {
      type: "delete";
      key: string;
      version: number;
      /** Its time was over. */
      expired?: true;
    }
  /** Changes between what was asked for and `version` are not known any more: read again, then go on after it. */
  | { type: "gap"; version: number };

/** What a write expects to find: a version, or `absent`. Omitted: it does not matter. */
export type Expected = number | "absent";

export type StateWrite =
  | {
      op: "put";
      key: string;
      value: unknown;
      ttlMs?: number;
      expect?: Expected;
    }
  | { op: "delete"; key: string; expect?: Expected };

export interface StateQuery {
  /** Only keys that begin so. Default: all. */
  prefix?: string;
  /** Go on behind this key. */
  after?: string;
  limit: number;
}

/**
 * A shared place for small values. A namespace holds keys in the order of their UTF-8 bytes; namespaces
 * know nothing of each other. Who may use which is decided before a store is asked.
 *
 * Every write is one transaction, and visible to whoever reads after it resolved. Rejections:
 * `state_conflict` (with `data: {key, version}`; `version` is 0 for a key that is not there) when an
 * expectation does not hold, and then nothing of the write has happened; `state_unavailable` when the
 * store cannot be reached: then a write may have happened or not.
 *
 * Limits, held by the callers of a store: a key has 1 to 512 bytes of UTF-8, a value at most 1 MiB of
 * JSON, a batch at most 100 writes and 4 MiB.
 */
export interface StateStore {
  readonly name: string;
  readonly capabilities: {
    /** What was acknowledged is still there after a crash of the store, and of the daemon. */
    readonly durable: boolean;
  };
  get(namespace: string, key: string): Promise<StateEntry | undefined>;
  /** All of the writes or none, in order, each with a version of its own; answers what `put` made. */
  write(namespace: string, writes: readonly StateWrite[]): Promise<(StateEntry | undefined)[]>;
  /** Entries in the order of their keys; `more` when there are further ones behind the last. */
  list(namespace: string, query: StateQuery): Promise<{ entries: StateEntry[]; more: boolean }>;
  /**
   * The changes after `version`, and all later ones until `signal` aborts; then it ends. 0 is from the
   * beginning. Absent: from now on, which is certain when the iterator's first `next()` was called.
   * Rejects with `state_unavailable` when the store is gone; the caller asks again.
   */
  watch(
    namespace: string,
    query: { prefix?: string; after?: number; signal: AbortSignal },
  ): AsyncIterable<StateChange>;
  /** Forgets a namespace with all that is in it. */
  drop(namespace: string): Promise<void>;
}

export const stateStore = defineSlot<StateStore, "one">("stateStore", "one");
