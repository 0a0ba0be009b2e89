import { defineSlot } from "./slot.js";

/** One value of the state store. */
export interface StateEntry {
  key: string;
  /** JSON. */
  value: unknown;
  /** Rises with every change in its namespace, a deletion included; unique in it. From 1. */
  version: number;
  /** RFC 3339, UTC. */
  updated_at: string;
  /** From then on it is not there, whoever looks. Absent: it stays. */
  expires_at?: string;
}

/** What became of a key, in the order of versions. */
export type StateChange =
  | { type: "put"; entry: StateEntry }
  | { type: "delete"; key: string; version: number }
  /** Deletions up to `version` are not known any more: read all again, then go on after it. */
  | { type: "gap"; version: number };

/** What a write expects to find: a version, or `absent`. Omitted: it does not matter. */
export type Expected = number | "absent";

export type StateWrite =
  | { op: "put"; key: string; value: unknown; ttlMs?: number; expect?: Expected }
  | { op: "delete"; key: string; expect?: Expected };

export interface StateQuery {
  /** Only keys that begin so. Default: all. */
  prefix?: string;
  /** Go on behind this key. */
  after?: string;
  /** At most 1,000. */
  limit: number;
}

export interface WatchQuery {
  prefix?: string;
  /** 0 is from the beginning. Absent: from now on. */
  after?: number;
  /** Ends it. */
  signal: AbortSignal;
}

/**
 * A shared place for small values. A namespace holds keys in the order of their UTF-8 bytes; namespaces
 * know nothing of each other. Who may use which is decided before a store is asked.
 *
 * A write is seen by everybody who reads after it has resolved. Rejections: `state_conflict`, with
 * `data: {key, version}` (0 where there is no such key), when an expectation does not hold, and then nothing
 * of the write has happened; `state_unavailable` when the store cannot be reached: then a write may have
 * happened or not.
 *
 * Limits, held by those who call a store: a namespace and a key have 1 to 512 bytes of UTF-8 each, a value
 * has at most 1 MiB of JSON, a write at most 100 operations and 4 MiB.
 */
export interface StateStore {
  readonly name: string;
  readonly capabilities: {
    /** What was acknowledged is still there after a crash of the store, and of the daemon. */
    readonly durable: boolean;
  };
  get(namespace: string, key: string): Promise<StateEntry | undefined>;
  /**
   * All of the writes or none, in order, each with a version of its own. Answers for each the entry that it
   * made, or the one that it deleted; `undefined` for the deletion of what is not there, which changes nothing.
   */
  write(namespace: string, writes: readonly StateWrite[]): Promise<(StateEntry | undefined)[]>;
  /**
   * Entries in the order of their keys, at most `limit` and about 4 MiB; `more` when there are further ones
   * behind the last.
   */
  list(namespace: string, query: StateQuery): Promise<{ entries: StateEntry[]; more: boolean }>;
  /**
   * The last change of every key after a version, then all changes as they come. One who is slow gets the last
   * change of each key: what was overwritten before its turn is left out. Entries whose time is over are told
   * as deleted, within seconds. Subscribed when the promise of the first `next()` was made. The iteration ends
   * when `signal` aborts, and rejects with `state_unavailable` when the store is gone: ask again, with `after`.
   */
  watch(namespace: string, query: WatchQuery): AsyncIterable<StateChange>;
  /** The namespaces that hold something, or have held something. */
  namespaces(): Promise<string[]>;
  /** Forgets a namespace with all that is in it. Its watches end. */
  drop(namespace: string): Promise<void>;
  /** Why it cannot be used now, in words; `undefined` when it can. */
  health(): string | undefined;
  /** Somebody is about to use it: brings it up, where that was left until it is needed. Returns at once. */
  wanted?(): void;
  /**
   * An address at which this agent reaches the store itself, and in it no more than it may; absent, or
   * `undefined`: there is none, and agents use the daemon's API.
   */
  urlFor?(agent: { agent_id: string; run_id: string }): string | undefined;
}

export const stateStore = defineSlot<StateStore, "one">("stateStore", "one");
