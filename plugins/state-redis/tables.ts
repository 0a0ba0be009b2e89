import type { Redis } from "ioredis";
import type { StateEntry, StateQuery, StateWrite } from "../../core/index.js";
import { expectVersion } from "../kit/expect-version.js";
import { aboveKeys, firstKey } from "../kit/key-range.js";
import { encodeWrite, entryOf, type Row, readRow } from "./rows.js";
import { SCRIPTS } from "./scripts.js";

export interface TablesOptions {
  /** Of all names on the server. */
  prefix: string;
  /** How many deletions of each namespace are kept for watches that resume. */
  maxDeletions: number;
}

export interface Change {
  version: number;
  key: string;
  /** Absent: it was deleted. */
  row?: Row;
}

export interface Changes {
  /** Of the namespace. */
  version: number;
  /** Deletions up to this one are not known any more. */
  pruned: number;
  /** What was looked at ends here. */
  seen: number;
  more: boolean;
  changes: Change[];
}

/** What is kept, by the server's commands and scripts. Everything rejects as the client rejects. */
export interface Tables {
  /** Told `+NAME` of what has changed, and `-NAME` of what was dropped. */
  readonly channel: string;
  get(name: string, key: string): Promise<StateEntry | undefined>;
  /** Sent when it is called, after what was sent before. Rejects with `state_conflict`. */
  write(name: string, writes: readonly StateWrite[]): Promise<(StateEntry | undefined)[]>;
  list(name: string, query: StateQuery): Promise<{ entries: StateEntry[]; more: boolean }>;
  /** Of the last change. Sent when it is called. */
  version(name: string): Promise<number>;
  changes(name: string, after: number, prefix: string): Promise<Changes>;
  names(): Promise<string[]>;
  drop(name: string): Promise<void>;
  /** Turns some of the entries whose time is over into deletions. Answers whether there is more to do. */
  clearUp(): Promise<boolean>;
}

const MAX_PAGE_BYTES = 4 * 2 ** 20;
/** What a watch holds at a time, and one value more. */
const MAX_CHANGES = 256;
const MAX_CHANGES_BYTES = 256 * 2 ** 10;
const CLEAR_UP_KEYS = 500;
const SCAN_COUNT = 1_000;

type Reply = (string | number | null)[];
type Scripts = Record<keyof typeof SCRIPTS, (...args: (string | Buffer | number)[]) => Promise<unknown>>;

export function createTables(redis: Redis, { prefix, maxDeletions }: TablesOptions): Tables {
  for (const [name, lua] of Object.entries(SCRIPTS)) redis.defineCommand(name, { lua, numberOfKeys: 0 });
  const scripts = redis as unknown as Scripts;
  const p = `${prefix}:state:`;
  // Channels are the same in all of the server's databases.
  const channel = `${p}changed@${redis.options.db ?? 0}`;

  return {
    channel,
    async get(name, key) {
      const text = await redis.hget(`${p}values:${name}`, key);
      const row = text === null ? undefined : readRow(text);
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
        return entryOf(key, op === "put" ? readRow(text, json) : readRow(text));
      });
    },
    async list(name, { prefix: begin = "", after, limit }) {
      const entries: StateEntry[] = [];
      let [min, bytes] = [bound("[", firstKey(begin, after)), MAX_PAGE_BYTES];
      const max = bound("(", aboveKeys(begin));
      // One more than is asked for, to know whether there is one.
      for (;;) {
        const args = [limit + 1 - entries.length, bytes, entries.length === 0 ? 1 : 0];
        const [end, last, ...found] = (await scripts.stateList(p, name, min, max, ...args)) as Reply;
        for (let at = 0; at < found.length; at += 2) {
          const text = String(found[at + 1]);
          bytes -= Buffer.byteLength(text);
          entries.push(entryOf(String(found[at]), readRow(text)));
        }
        if (entries.length > limit) return { entries: entries.slice(0, limit), more: true };
        if (end !== "on") return { entries, more: end === "full" };
        min = bound("(", Buffer.from(String(last)));
      }
    },
    version: async (name) => Number((await redis.hget(`${p}namespaces`, name)) ?? 0),
    async changes(name, after, begin) {
      const args = [after, begin, MAX_CHANGES, MAX_CHANGES_BYTES];
      const [version, pruned, seen, more, ...found] = (await scripts.stateChanges(p, name, ...args)) as Reply;
      const changes: Change[] = [];
      for (let at = 0; at < found.length; at += 3) {
        const text = found[at + 2];
        const row = typeof text === "string" ? { row: readRow(text) } : {};
        changes.push({ version: Number(found[at]), key: String(found[at + 1]), ...row });
      }
      return {
        version: Number(version),
        pruned: Number(pruned),
        seen: Number(seen),
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
    clearUp: async () => (await scripts.stateClearUp(p, "", channel, maxDeletions, CLEAR_UP_KEYS)) === 1,
  };
}

async function nowMs(redis: Redis): Promise<number> {
  const [seconds, micros] = await redis.time();
  return Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000);
}

/** As ZRANGEBYLEX has it: with this key, or without. */
function bound(kind: "[" | "(", key: Buffer): Buffer {
  return Buffer.concat([Buffer.from(kind), key]);
}
