import { Redis, type RedisOptions } from "ioredis";
import type { Clock } from "../../../core/index.js";
import { describeRedisError } from "./failures.js";
import type { RedisTarget } from "./options.js";

/** A connection that is made again whenever it is lost. */
export interface RedisConnection {
  /** The client. Its commands reject at once while it is not connected; none is sent a second time. */
  readonly redis: Redis;
  /** Connects, and tries again until `close`. Resolves when it is ready or the first attempt has failed. */
  open(): Promise<void>;
  /** Says without credentials why the connection cannot be used now; `undefined` when it can. */
  health(): string | undefined;
  close(): void;
}

export interface ConnectionOptions {
  target: RedisTarget;
  /** The name of the connection on the server, behind `openstarry-`. */
  role: string;
  clock: Pick<Clock, "after">;
  /** How long the server may take to answer before the connection is made again. Default 10,000. */
  answerTimeoutMs?: number | undefined;
  /** Prepares each new connection before it is used. Called again when it rejects. */
  prepare?: ((redis: Redis) => Promise<void>) | undefined;
  /** Called when the connection becomes ready, is lost, or an attempt fails. */
  onChange?: () => void;
}

/** How often an idle connection is checked. */
const PING_MS = 5_000;
/** The pause before `prepare` is tried again. */
const PREPARE_RETRY_MS = 500;
const CONNECT_TIMEOUT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 10_000;
const LONGEST_PAUSE_MS = 2_000;

export function createConnection(options: ConnectionOptions): RedisConnection {
  const { target, role, clock, prepare, answerTimeoutMs = ANSWER_TIMEOUT_MS, onChange = () => {} } = options;
  let lastProblem: string | undefined;
  let isPrepared = false;
  let wasPrepared = false;
  let resolveFirstAttempt = () => {};
  const firstAttempt = new Promise<void>((resolve) => {
    resolveFirstAttempt = resolve;
  });
  let cancelPing = () => {};
  let cancelRetry = () => {};
  const redis = new Redis({
    ...target.options,
    ...NO_QUEUE,
    connectionName: `openstarry-${role}`,
    connectTimeout: CONNECT_TIMEOUT_MS,
    socketTimeout: answerTimeoutMs,
    retryStrategy: pauseAfter,
  });

  const changed = () => {
    resolveFirstAttempt();
    onChange();
  };
  const onError = (error: unknown) => {
    lastProblem = describeRedisError(error).problem;
    changed();
  };
  async function onReady(): Promise<void> {
    try {
      // Fails while the server loads its data, when it accepts no commands.
      await redis.ping();
      await prepare?.(redis);
    } catch (error) {
      onError(error);
      cancelRetry();
      if (redis.status === "ready") cancelRetry = clock.after(PREPARE_RETRY_MS, () => void onReady());
      return;
    }
    if (redis.status !== "ready") return;
    isPrepared = true;
    wasPrepared = true;
    lastProblem = undefined;
    changed();
  }
  // The missing answer reveals a server that has vanished without closing the connection.
  const ping = () => {
    if (isPrepared) redis.ping().catch(() => {});
    cancelPing = clock.after(PING_MS, ping);
  };
  redis.on("ready", () => void onReady());
  redis.on("error", onError);
  redis.on("close", () => {
    isPrepared = false;
    changed();
  });

  return {
    redis,
    async open() {
      if (redis.status !== "wait") return;
      cancelPing = clock.after(PING_MS, ping);
      redis.connect().catch(() => {});
      await firstAttempt;
    },
    health() {
      if (isPrepared && redis.status === "ready") return undefined;
      if (redis.status === "end") return "connection closed";
      if (lastProblem !== undefined) return `${target.address}: ${lastProblem}`;
      return `${target.address}: ${wasPrepared ? "connection lost" : "not connected yet"}`;
    },
    close() {
      cancelPing();
      cancelRetry();
      redis.disconnect();
    },
  };
}

/**
 * Commands that cannot be sent reject at once, and commands without an answer reject and are not repeated. The client's
 * own check for a server that is loading prints to the console, so it is off.
 */
const NO_QUEUE: RedisOptions = {
  lazyConnect: true,
  enableReadyCheck: false,
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  maxRetriesPerRequest: 0,
};

/** Returns the pause before the next attempt. Short at first: a managed server is up in a moment, and agents wait. */
function pauseAfter(attempts: number): number {
  return Math.min(20 * 1.3 ** Math.min(attempts - 1, 30), LONGEST_PAUSE_MS) * (0.75 + Math.random() / 2);
}
