import { createHash } from "node:crypto";
import type { Clock } from "../../../core/index.js";
import { ownerOf } from "../../kit/topics.js";
import type { Identity } from "../ipc/identity.js";

/** Decides what MQTT clients may do. Calls reject when no daemon answers, and the client must try again. */
export interface Authorizer {
  /** Returns the identity of a token; `undefined` when the token is not valid. */
  identify(token: string): Promise<Identity | undefined>;
  mayPublish(who: Identity, topic: string): Promise<boolean>;
  maySubscribe(who: Identity, filter: string): Promise<boolean>;
}

export interface CachingAuthorizerOptions {
  /** Asks the daemon. Rejects when none answers. */
  ask: (question: object) => Promise<Readonly<Record<string, unknown>>>;
  /** Calls `listener` when a daemon connects. Returns a function that removes it. */
  onDaemon: (listener: () => void) => () => void;
  clock: Pick<Clock, "monotonic" | "after">;
}

export interface CachingAuthorizer extends Authorizer {
  /** Rejects the tokens and requests of a run from now on: it is over. */
  endRun(runId: string): void;
  /** Forgets the decisions about an agent's topics, since another agent may get its id. */
  forgetOwner(agentId: string): void;
  /** Returns the runs whose identities are cached. */
  runs(): Set<string>;
}

interface Decision {
  allowed: boolean;
  /** The agent that owns the topic or filter. */
  owner: string | undefined;
}

/** How long an answer is used while a daemon is connected: tokens and agent trees change. */
const FRESH_MS = 5_000;
/** How long the daemon may take to answer. */
const ANSWER_TIMEOUT_MS = 3_000;
/** How long a question without a cached answer waits for a daemon to connect. */
const DAEMON_TIMEOUT_MS = 10_000;
const MAX_IDENTITIES = 10_000;
const MAX_DECISIONS = 50_000;

/**
 * Creates an authorizer that asks the daemon and caches its answers. While no daemon answers, cached answers stay
 * valid, so that connected agents keep working. The cache holds only the SHA-256 of a token.
 */
export function createCachingAuthorizer(options: CachingAuthorizerOptions): CachingAuthorizer {
  const { ask } = options;
  const identities = createCache<Identity | undefined>(MAX_IDENTITIES, options);
  const decisions = createCache<Decision>(MAX_DECISIONS, options);

  /** Runs that have ended, since an answer about one may still be on its way. */
  const endedRuns = new Set<string>();
  const hasEnded = (who: Identity | undefined) => who?.runId !== undefined && endedRuns.has(who.runId);

  const isAllowed = async (who: Identity, what: "publish" | "subscribe", where: string): Promise<boolean> => {
    const key = JSON.stringify([who.name, who.runId, what, where]);
    const { allowed } = await decisions.get(key, async () => {
      const answer = await ask({ do: "may", who, what, where });
      return { allowed: answer["allowed"] === true, owner: ownerOf(where) };
    });
    return allowed && !hasEnded(who);
  };
  return {
    async identify(token) {
      const who = await identities.get(createHash("sha256").update(token).digest("hex"), async () => {
        const answer = await ask({ do: "identify", token });
        return answer["identity"] as Identity | undefined;
      });
      return hasEnded(who) ? undefined : who;
    },
    mayPublish: (who, topic) => isAllowed(who, "publish", topic),
    maySubscribe: (who, filter) => isAllowed(who, "subscribe", filter),
    endRun(runId) {
      endedRuns.add(runId);
      for (const oldest of endedRuns) {
        if (endedRuns.size <= MAX_IDENTITIES) break;
        endedRuns.delete(oldest);
      }
      identities.forget((it) => it?.runId === runId);
    },
    forgetOwner: (agentId) => decisions.forget(({ owner }) => owner === agentId),
    runs: () => new Set(identities.values().flatMap((it) => it?.runId ?? [])),
  };
}

function createCache<T>(max: number, { clock, onDaemon }: CachingAuthorizerOptions) {
  const entries = new Map<string, { value: T; at: number }>();

  function withTimeout<R>(ms: number, result: Promise<R>): Promise<R> {
    return new Promise((resolve, reject) => {
      const cancel = clock.after(ms, () => reject(new Error(`the daemon did not answer within ${ms} ms`)));
      void result.finally(cancel).then(resolve, reject);
    });
  }

  /** Resolves when a daemon connects, or after the timeout. */
  function nextDaemon(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        cancel();
        removeListener();
        resolve();
      };
      const cancel = clock.after(DAEMON_TIMEOUT_MS, done);
      const removeListener = onDaemon(done);
    });
  }

  function put(key: string, value: T): T {
    entries.delete(key);
    if (value !== undefined) entries.set(key, { value, at: clock.monotonic() });
    for (const oldest of entries.keys()) {
      if (entries.size <= max) break;
      entries.delete(oldest);
    }
    return value;
  }

  return {
    values: () => [...entries.values()].map(({ value }) => value),
    forget(isMatch: (value: T) => boolean): void {
      for (const [key, { value }] of entries) if (isMatch(value)) entries.delete(key);
    },
    /** Returns a fresh cached value, or else a new one, or else a stale cached one. Rejects without any of them. */
    async get(key: string, load: () => Promise<T>): Promise<T> {
      const cached = entries.get(key);
      if (cached && clock.monotonic() - cached.at < FRESH_MS) return cached.value;
      try {
        return put(key, await withTimeout(ANSWER_TIMEOUT_MS, load()));
      } catch {
        if (cached) return put(key, cached.value);
      }
      await nextDaemon();
      return put(key, await withTimeout(ANSWER_TIMEOUT_MS, load()));
    },
  };
}
