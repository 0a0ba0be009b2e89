import { Redis, type RedisOptions } from "ioredis";
import type { Clock } from "../../../core/index.js";
import { redisProblem } from "./failures.js";
import type { RedisTarget } from "./options.js";

/** One connection, made anew as often as it is lost. */
export interface RedisConnection {
  /** Commands reject at once while it is not connected; none is sent a second time. */
  readonly redis: Redis;
  /** Connects, and goes on trying until `close`. Answers when it is ready, or has failed for the first time. */
  open(): Promise<void>;
  /** Why it cannot be used now, in words without credentials; `undefined` when it can. */
  health(): string | undefined;
  /** For good. */
  close(): void;
}

export interface ConnectionOptions {
  target: RedisTarget;
  /** How the server lists it, behind `openstarry-`. */
  role: string;
  clock: Pick<Clock, "after">;
  /** A server that owes an answer for longer is given up, and connected to anew. Default 10,000. */
  answerTimeoutMs?: number;
  /** What has to be done on each connection before it can be used. Tried again when it rejects. */
  prepare?: (redis: Redis) => Promise<void>;
  /** It is ready, or no more. Also called for attempts that fail. */
  onChange?: () => void;
}

/** How often a server that nobody asks anything is asked whether it is there. */
const PING_MS = 5_000;
/** How soon one that is connected, and cannot be used yet, is tried again. */
const RETRY_MS = 500;
const CONNECT_TIMEOUT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 10_000;
const LONGEST_PAUSE_MS = 2_000;

export function createConnection(options: ConnectionOptions): RedisConnection {
  const { target, role, clock, prepare, answerTimeoutMs = ANSWER_TIMEOUT_MS, onChange = () => {} } = options;
  let lastProblem: string | undefined;
  let prepared = false;
  let wasPrepared = false;
  let tried = () => {};
  const firstTry = new Promise<void>((resolve) => {
    tried = resolve;
  });
  let cancelPing = () => {};
  let cancelRetry = () => {};
  const redis = new Redis({
    ...target.options,
    ...NEVER_QUEUED,
    connectionName: `openstarry-${role}`,
    connectTimeout: CONNECT_TIMEOUT_MS,
    socketTimeout: answerTimeoutMs,
    retryStrategy: pauseAfter,
  });

  const changed = () => {
    tried();
    onChange();
  };
  const failed = (error: unknown) => {
    lastProblem = redisProblem(error).problem;
    changed();
  };
  async function makeReady(): Promise<void> {
    try {
      // A server that is loading its data says so, and takes no commands.
      await redis.ping();
      await prepare?.(redis);
    } catch (error) {
      failed(error);
      cancelRetry();
      if (redis.status === "ready") cancelRetry = clock.after(RETRY_MS, () => void makeReady());
      return;
    }
    if (redis.status !== "ready") return;
    prepared = true;
    wasPrepared = true;
    lastProblem = undefined;
    changed();
  }
  // A server that is gone without a word is noticed by the answer that it owes.
  const ping = () => {
    if (prepared) redis.ping().catch(() => {});
    cancelPing = clock.after(PING_MS, ping);
  };
  redis.on("ready", () => void makeReady());
  redis.on("error", failed);
  redis.on("close", () => {
    prepared = false;
    changed();
  });

  return {
    redis,
    async open() {
      if (redis.status !== "wait") return;
      cancelPing = clock.after(PING_MS, ping);
      redis.connect().catch(() => {});
      await firstTry;
    },
    health() {
      if (prepared && redis.status === "ready") return undefined;
      if (redis.status === "end") return "the connection is closed";
      if (lastProblem !== undefined) return `${target.address}: ${lastProblem}`;
      return `${target.address}: ${wasPrepared ? "the connection is lost" : "not connected yet"}`;
    },
    close() {
      cancelPing();
      cancelRetry();
      redis.disconnect();
    },
  };
}

/**
 * What cannot be sent is told at once, and what was not answered is told as such and not sent again. The client's own
 * check for a server that is loading prints to the console.
 */
const NEVER_QUEUED: RedisOptions = {
  lazyConnect: true,
  enableReadyCheck: false,
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  maxRetriesPerRequest: 0,
};

/** Short at first: a server of our own is there in a moment, and agents wait for it. */
function pauseAfter(attempts: number): number {
  return Math.min(20 * 1.3 ** Math.min(attempts - 1, 30), LONGEST_PAUSE_MS) * (0.75 + Math.random() / 2);
}
