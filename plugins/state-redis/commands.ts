import type { Redis } from "ioredis";
import type { StateEntry, StateQuery, StateWrite } from "../../core/index.js";
import { expectVersion } from "../kit/expect-version.js";
import { aboveKeys, firstKey } from "../kit/key-range.js";
import { encodeWrite, entryOf, parseRow, type Row } from "./rows.js";
import { SCRIPTS } from "./scripts.js";

export interface CommandsOptions {
  /** The prefix of all keys on the server. */
  prefix: string;
  /** How many deletions of each namespace are remembered for watches that resume. */
  maxDeletions: number;
}

export interface Change {
  version: number;
  key: string;
  /** Absent: the key was deleted. */
  row?: Row | undefined;
}

export interface ChangePage {
  /** The version of the namespace. */
  version: number;
  /** Deletions up to this version are forgotten. */
  pruned: number;
  /** The version up to which the page has searched. */
  searchedUpTo: number;
  more: boolean;
  changes: Change[];
}

/** The store's operations as commands and scripts of the server. They reject with the client's errors. */
export interface Commands {
  /** The channel with notifications: `+NAME` when a namespace has changed, `-NAME` when it was dropped. */
  readonly channel: string;
  get(name: string, key: string): Promise<StateEntry | undefined>;
  /** Sends the writes at once. Rejects with `state_conflict`. */
  write(name: string, writes: readonly StateWrite[]): Promise<(StateEntry | undefined)[]>;
  list(name: string, query: StateQuery): Promise<{ entries: StateEntry[]; more: boolean }>;
  /** Resolves with the version of the namespace's last change. Sent at once. */
  version(name: string): Promise<number>;
  changes(name: string, after: number, prefix: string): Promise<ChangePage>;
  names(): Promise<string[]>;
  drop(name: string): Promise<void>;
  /** Deletes some of the expired entries. Resolves with whether there are more. */
  deleteExpired(): Promise<boolean>;
}

const MAX_PAGE_BYTES = 4 * 2 ** 20;
/** Limits of a page of changes, of which a watch holds one. The last value may exceed the bytes. */
const MAX_CHANGES = 256;
const MAX_CHANGES_BYTES = 256 * 2 ** 10;
const EXPIRED_BATCH = 500;
const SCAN_COUNT = 1_000;

type Reply = (string | number | null)[];
type Scripts = Record<keyof typeof SCRIPTS, (...args: (string | Buffer | number)[]) => Promise<unknown>>;

export function createCommands(redis: Redis, { prefix, maxDeletions }: CommandsOptions): Commands {
  for (const [name, lua] of Object.entries(SCRIPTS)) redis.defineCommand(name, { lua, numberOfKeys: 0 });
  const scripts = redis as unknown as Scripts;
  const p = `${prefix}:state:`;
  // With the database's number, since a server's channels are shared by its databases.
  const channel = `${p}changed@${redis.options.db ?? 0}`;

  return {
    channel,
    async get(name, key) {
      const text = await redis.hget(`${p}values:${name}`, key);
      const row = text === null ? undefined : parseRow(text);
      if (!row || (row.expiresAtMs > 0 && row.expiresAtMs <= (await nowMs(redis)))) return undefined;
      return entryOf(key, row);
    },
    async write(name, writes) {
      const encoded = writes.map(encodeWrite);
      const args = encoded.flatMap(({ op, key, expect, ttl, json }) => [op, key, expect, ttl, json]);
      const [outcome, found, ...answers] = (await scripts.stateWrite(
        ...[p, name, channel, maxDeletions, ...args],
      )) as Reply;
      if (outcome === "conflict") {
        const refused = writes[Number(found)];
        expectVersion(refused?.key ?? "", Number(answers[0]), refused?.expect);
      }
      return encoded.map(({ op, key, json }, index) => {
        const text = answers[index];
        if (typeof text !== "string") return undefined;
        return entryOf(key, op === "put" ? parseRow(text, json) : parseRow(text));
      });
    },
    async list(name, { prefix: keyPrefix = "", after, limit }) {
      const entries: StateEntry[] = [];
      let [min, bytes] = [bound("[", firstKey(keyPrefix, after)), MAX_PAGE_BYTES];
      const max = bound("(", aboveKeys(keyPrefix));
      // Reads one entry more than asked for, to know whether there are more.
      for (;;) {
        const args = [limit + 1 - entries.length, bytes, entries.length === 0 ? 1 : 0];
        const [end, last, ...found] = (await scripts.stateList(p, name, min, max, ...args)) as Reply;
        for (let at = 0; at < found.length; at += 2) {
          const text = String(found[at + 1]);
          bytes -= Buffer.byteLength(text);
          entries.push(entryOf(String(found[at]), parseRow(text)));
        }
        if (entries.length > limit) return { entries: entries.slice(0, limit), more: true };
        if (end !== "on") return { entries, more: end === "full" };
        min = bound("(", Buffer.from(String(last)));
      }
    },
    version: async (name) => Number((await redis.hget(`${p}namespaces`, name)) ?? 0),
    async changes(name, after, keyPrefix) {
      const args = [after, keyPrefix, MAX_CHANGES, MAX_CHANGES_BYTES];
      const [version, pruned, searchedUpTo, more, ...found] = (await scripts.stateChanges(
        ...[p, name, ...args],
      )) as Reply;
      const changes: Change[] = [];
      for (let at = 0; at < found.length; at += 3) {
        const text = found[at + 2];
        const row = typeof text === "string" ? parseRow(text) : undefined;
        changes.push({ version: Number(found[at]), key: String(found[at + 1]), row });
      }
      return {
        version: Number(version),
        pruned: Number(pruned),
        searchedUpTo: Number(searchedUpTo),
        more: more === 1,
        changes,
      };
    },
    async names() {
      const names = new Set<string>();
      let cursor = "0";
      do {
        const [next, found] = await redis.hscan(`${p}namespaces`, cursor, "COUNT", SCAN_COUNT);
        for (let at = 0; at < found.length; at += 2) names.add(found[at] ?? "");
        cursor = next;
      } while (cursor !== "0");
      return [...names];
    },
    async drop(name) {
      await scripts.stateDrop(p, name, channel);
    },
    deleteExpired: async () =>
      (await scripts.stateDeleteExpired(p, "", channel, maxDeletions, EXPIRED_BATCH)) === 1,
  };
}

async function nowMs(redis: Redis): Promise<number> {
  const [seconds, micros] = await redis.time();
  return Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000);
}

/** Returns a bound for ZRANGEBYLEX: `[` includes the key, `(` excludes it. */
function bound(kind: "[" | "(", key: Buffer): Buffer {
  return Buffer.concat([Buffer.from(kind), key]);
}
