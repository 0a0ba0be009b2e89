import type { Redis } from "ioredis";
import type { BusMessage } from "../../core/index.js";
import { levelsOf, patternOf } from "./filters.js";
import { scripts } from "./scripts.js";

export interface CallsOptions {
  redis: Redis;
  /** What all names begin with, and the channel. */
  root: string;
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
  /** Throws while nothing may be written, with so many bytes on their way already. */
  checkRoom: (underWayBytes: number) => void;
  /** Turns the client's errors into the bus's. */
  reaching: <T>(act: () => Promise<T>) => Promise<T>;
}

/** A message but for its payload's place: what `about` holds as JSON. */
type About = Pick<BusMessage, "at" | "from" | "reply_to">;

export interface Claim {
  /** There may be more to deliver at once. */
  more: boolean;
  /** Until one that is out or waits is delivered again. */
  nextDueMs: number | undefined;
  found: { message: BusMessage; position: string; attempt: number }[];
}

const WRITE_NOTHING: ReadonlySet<string> = new Set<keyof typeof scripts>(["pass", "begin", "read"]);

export type Calls = ReturnType<typeof createCalls>;

/** So much is answered at once; one message more, at most. */
const MOST_AT_ONCE = 100;
const MOST_BYTES_AT_ONCE = 256 * 1_024;

/** The scripts as functions. They take effect in the order of the calls. */
export function createCalls(options: CallsOptions) {
  const { redis, root, maxMessages, maxBytes, maxGroups, checkRoom, reaching } = options;
  let underWayBytes = 0;
  for (const [name, lua] of Object.entries(scripts)) {
    redis.defineCommand(commandOf(name), { lua, numberOfKeys: 1 });
  }

  function run(script: keyof typeof scripts, ...args: (string | number | Buffer)[]): Promise<unknown> {
    const commands = redis as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
    // The one that answers bytes.
    return reaching(async () => {
      if (!WRITE_NOTHING.has(script)) checkRoom(underWayBytes);
      return commands[`${commandOf(script)}Buffer`]?.call(redis, root, ...args);
    });
  }

  return {
    async publish(topic: string, about: About, payload: Buffer): Promise<string> {
      underWayBytes += payload.byteLength;
      try {
        return String(await run("publish", topic, JSON.stringify(about), payload, maxMessages, maxBytes));
      } finally {
        underWayBytes -= payload.byteLength;
      }
    },
    async pass(topic: string, about: About, payload: Buffer): Promise<void> {
      await run("pass", topic, JSON.stringify(about), payload);
    },
    async begin(reader: string): Promise<void> {
      await run("begin", reader);
    },
    /** What fits, behind one position and up to another; and how far that is. */
    async read(after: number, upTo: number, pattern: string) {
      const answer = await run("read", after, upTo, pattern, MOST_AT_ONCE, MOST_BYTES_AT_ONCE);
      const [cursor, ...rows] = answer as [Buffer | null, ...Row[]];
      return { cursor: cursor === null ? upTo : Number(cursor), messages: rows.map(messageOf) };
    },
    async join(group: string, after: number | undefined, born: string, leaseMs: number): Promise<string> {
      return String(await run("join", group, after ?? "", born, maxGroups, leaseMs));
    },
    async lease(leaseMs: number, groups: readonly string[]): Promise<void> {
      await run("lease", leaseMs, ...groups);
    },
    /** `undefined`: the group is gone. */
    async claim(
      group: string,
      born: string,
      pattern: string,
      ackWaitsMs: number[],
    ): Promise<Claim | undefined> {
      const waits = ackWaitsMs.slice(0, MOST_AT_ONCE);
      const answer = await run("claim", group, born, pattern, MOST_BYTES_AT_ONCE, ...waits);
      if (answer === null) return undefined;
      const [more, nextDueMs, ...rows] = answer as [number, number, ...DeliveryRow[]];
      return {
        more: more === 1,
        nextDueMs: nextDueMs < 0 ? undefined : nextDueMs,
        found: rows.map((row) => ({
          message: messageOf(row),
          position: String(row[0]),
          attempt: Number(row[4]),
        })),
      };
    },
    async ack(group: string, born: string, position: string, attempt: number): Promise<void> {
      await run("ack", group, born, position, attempt);
    },
    /** Attempts that are to be delivered again; those that their member has not seen do not count. */
    async giveBack(group: string, born: string, delayMs: number, attempts: Attempt[]): Promise<void> {
      const args = attempts.flatMap(({ position, attempt, isSeen }) => [
        position,
        attempt,
        isSeen ? -attempt : 1 - attempt,
      ]);
      if (args.length > 0) await run("giveBack", group, born, delayMs, ...args);
    },
    async removeGroup(group: string): Promise<void> {
      await run("removeGroup", group);
    },
    async drop(filter: string): Promise<void> {
      await run("drop", patternOf(filter), ...levelsOf(filter));
    },
    /** Resolves when all that was called before has been answered. */
    async flush(): Promise<void> {
      await redis.ping().catch(() => {});
    },
  };
}

export interface Attempt {
  position: string;
  attempt: number;
  isSeen: boolean;
}

type Row = [position: Buffer, topic: Buffer, about: Buffer, payload: Buffer];
type DeliveryRow = [...Row, attempt: number];

function messageOf([position, topic, about, payload]: Row | DeliveryRow): BusMessage {
  return { position: String(position), ...contentOf(String(topic), String(about), payload) };
}

/** A message without its position, as the server has it. */
export function contentOf(topic: string, about: string, payload: Buffer): BusMessage {
  // A copy: what the client hands out is a view of a much larger piece, which would be held with it.
  return { topic, ...(JSON.parse(about) as About), payload: new Uint8Array(payload) };
}

function commandOf(script: string): string {
  return `openstarry_${script}`;
}
