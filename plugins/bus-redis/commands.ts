import type { Redis } from "ioredis";
import type { BusMessage } from "../../core/index.js";
import { scripts } from "./scripts.js";
import { literalLevelsOf, luaPatternOf } from "./topic-patterns.js";

export interface CommandsOptions {
  redis: Redis;
  /** The prefix of all keys, which is also the name of the channel. */
  root: string;
  maxMessages: number;
  maxBytes: number;
  maxGroups: number;
  /** Throws while writes are not allowed, with this many bytes being written already. */
  assertWritable: (bytesInFlight: number) => void;
  /** Turns the client's errors into `bus_unavailable`. */
  translateErrors: <T>(act: () => Promise<T>) => Promise<T>;
}

/** The parts of a message other than topic and payload. The server stores them as JSON (`about`). */
type Metadata = Pick<BusMessage, "at" | "from" | "reply_to">;

export interface Claim {
  /** Whether there may be more messages to deliver now. */
  more: boolean;
  /** How long until the next redelivery is due. */
  nextDueMs: number | undefined;
  found: { message: BusMessage; position: string; attempt: number }[];
}

/** One delivery that goes back to its group. */
export interface ReturnedDelivery {
  position: string;
  attempt: number;
  /** Whether its member has seen it. If not, it does not count as an attempt. */
  isSeen: boolean;
}

const READ_ONLY: ReadonlySet<string> = new Set<keyof typeof scripts>([
  "publishTransient",
  "startReader",
  "read",
]);

export type Commands = ReturnType<typeof createCommands>;

/** Limits of one answer. The last message may exceed the bytes. */
const MAX_BATCH = 100;
const MAX_BATCH_BYTES = 256 * 1_024;

/** Creates the functions that call the scripts. They take effect in the order of the calls. */
export function createCommands(options: CommandsOptions) {
  const { redis, root, maxMessages, maxBytes, maxGroups, assertWritable, translateErrors } = options;
  let bytesInFlight = 0;
  for (const [name, lua] of Object.entries(scripts)) {
    redis.defineCommand(commandName(name), { lua, numberOfKeys: 1 });
  }

  function run(script: keyof typeof scripts, ...args: (string | number | Buffer)[]): Promise<unknown> {
    const commands = redis as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
    return translateErrors(async () => {
      if (!READ_ONLY.has(script)) assertWritable(bytesInFlight);
      // The variant of the command that answers with bytes instead of strings.
      return commands[`${commandName(script)}Buffer`]?.call(redis, root, ...args);
    });
  }

  return {
    async publish(topic: string, metadata: Metadata, payload: Buffer): Promise<string> {
      bytesInFlight += payload.byteLength;
      try {
        const answer = await run("publish", topic, JSON.stringify(metadata), payload, maxMessages, maxBytes);
        return String(answer);
      } finally {
        bytesInFlight -= payload.byteLength;
      }
    },
    async publishTransient(topic: string, metadata: Metadata, payload: Buffer): Promise<void> {
      await run("publishTransient", topic, JSON.stringify(metadata), payload);
    },
    async startReader(readerId: string): Promise<void> {
      await run("startReader", readerId);
    },
    /** Reads a batch behind one position and up to another, with the position up to which it has searched. */
    async read(after: number, upTo: number, pattern: string) {
      const answer = await run("read", after, upTo, pattern, MAX_BATCH, MAX_BATCH_BYTES);
      const [cursor, ...rows] = answer as [Buffer | null, ...Row[]];
      return { cursor: cursor === null ? upTo : Number(cursor), messages: rows.map(messageOf) };
    },
    /** Creates the group if it does not exist. Resolves with its id, which is `newId` if it is new. */
    async joinGroup(
      group: string,
      after: number | undefined,
      newId: string,
      leaseMs: number,
    ): Promise<string> {
      return String(await run("joinGroup", group, after ?? "", newId, maxGroups, leaseMs));
    },
    /** Marks groups as having members for a time from now on; for 0, as having none. */
    async renewLease(leaseMs: number, groups: readonly string[]): Promise<void> {
      await run("renewLease", leaseMs, ...groups);
    },
    /** Takes messages, one for each member's `ackWaitMs`. Resolves with `undefined` when the group was removed. */
    async claim(
      group: string,
      groupId: string,
      pattern: string,
      ackWaitsMs: number[],
    ): Promise<Claim | undefined> {
      const waits = ackWaitsMs.slice(0, MAX_BATCH);
      const answer = await run("claim", group, groupId, pattern, MAX_BATCH_BYTES, ...waits);
      return answer === null ? undefined : claimOf(answer as [number, number, ...DeliveryRow[]]);
    },
    async ack(group: string, groupId: string, position: string, attempt: number): Promise<void> {
      await run("ack", group, groupId, position, attempt);
    },
    /** Returns deliveries to the group, to be delivered again after a delay. */
    async returnDeliveries(
      group: string,
      groupId: string,
      delayMs: number,
      deliveries: ReturnedDelivery[],
    ): Promise<void> {
      const args = deliveries.flatMap(({ position, attempt, isSeen }) => [
        position,
        attempt,
        isSeen ? -attempt : 1 - attempt,
      ]);
      if (args.length > 0) await run("returnDeliveries", group, groupId, delayMs, ...args);
    },
    async removeGroup(group: string): Promise<void> {
      await run("removeGroup", group);
    },
    async drop(filter: string): Promise<void> {
      await run("drop", luaPatternOf(filter), ...literalLevelsOf(filter));
    },
    /** Resolves when all earlier commands were answered. */
    async flush(): Promise<void> {
      await redis.ping().catch(() => {});
    },
  };
}

type Row = [position: Buffer, topic: Buffer, metadata: Buffer, payload: Buffer];
type DeliveryRow = [...Row, attempt: number];

function messageOf([position, topic, metadata, payload]: Row | DeliveryRow): BusMessage {
  return { position: String(position), ...parseMessage(String(topic), String(metadata), payload) };
}

function claimOf([more, nextDueMs, ...rows]: [number, number, ...DeliveryRow[]]): Claim {
  return {
    more: more === 1,
    nextDueMs: nextDueMs < 0 ? undefined : nextDueMs,
    found: rows.map((row) => ({
      message: messageOf(row),
      position: String(row[0]),
      attempt: Number(row[4]),
    })),
  };
}

/** Parses a message as the server sends it; it has no position yet. */
export function parseMessage(topic: string, metadata: string, payload: Buffer): BusMessage {
  // A copy, since a view would keep the whole received chunk in memory.
  return { topic, ...(JSON.parse(metadata) as Metadata), payload: new Uint8Array(payload) };
}

function commandName(script: string): string {
  return `openstarry_${script}`;
}
