import { createHash } from "node:crypto";
import type { Clock } from "../../../core/index.js";
import { ownerOf } from "../../kit/topics.js";

/** Who a client is; decided by the daemon. */
export interface Identity {
  /** As `from` of its messages: `agent:ID` or `operator`. */
  readonly name: string;
  readonly agentId?: string;
  readonly runId?: string;
}

/** What clients may do; decided by the daemon. Rejects when nobody can be asked: the client is to come again. */
export interface Guard {
  /** Whose token it is; `undefined`: nobody's. */
  identify(token: string): Promise<Identity | undefined>;
  mayPublish(who: Identity, topic: string): Promise<boolean>;
  maySubscribe(who: Identity, filter: string): Promise<boolean>;
}

export interface RememberingGuardOptions {
  /** Rejects when no daemon answers. */
  ask: (question: object) => Promise<Readonly<Record<string, unknown>>>;
  /** Calls back when a daemon comes. The returned function ends it. */
  onDaemon: (listener: () => void) => () => void;
  clock: Pick<Clock, "monotonic" | "after">;
}

export interface RememberingGuard extends Guard {
  /** This run is over: it is nobody any more. */
  forgetRun(runId: string): void;
  /** What was decided about topics of this agent: its id may be another's next. */
  forgetOwner(agentId: string): void;
  /** Runs that are known here. */
  runs(): Set<string>;
}

interface Decision {
  allowed: boolean;
  /** The agent whose topics it is about. */
  owner: string | undefined;
}

/** A daemon that is there is asked again after so long: families change, and tokens. */
const FRESH_MS = 5_000;
/** A daemon that does not answer for so long is as good as none. */
const ANSWER_MS = 3_000;
/** Who is not known yet waits so long for a daemon that comes back. */
const PATIENCE_MS = 10_000;
const MAX_IDENTITIES = 10_000;
const MAX_DECISIONS = 50_000;

/**
 * Asks the daemon, and remembers what it said: while there is none, agents that it knew go on as before.
 * Tokens are remembered by their SHA-256 alone.
 */
export function createRememberingGuard(options: RememberingGuardOptions): RememberingGuard {
  const { ask } = options;
  const identities = createMemory<Identity | undefined>(MAX_IDENTITIES, options);
  const decisions = createMemory<Decision>(MAX_DECISIONS, options);

  /** Runs that ended a while ago at most: an answer about them may still be under way. */
  const over = new Set<string>();
  const isOver = (who: Identity | undefined) => who?.runId !== undefined && over.has(who.runId);

  const may = async (who: Identity, what: "publish" | "subscribe", where: string): Promise<boolean> => {
    const key = JSON.stringify([who.name, who.runId, what, where]);
    const decided = () =>
      ask({ do: "may", who, what, where }).then((it) => ({
        allowed: it["allowed"] === true,
        owner: ownerOf(where),
      }));
    const { allowed } = await decisions.recall(key, decided);
    return allowed && !isOver(who);
  };
  return {
    async identify(token) {
      const asked = () => ask({ do: "identify", token }).then((it) => it["identity"] as Identity | undefined);
      const who = await identities.recall(createHash("sha256").update(token).digest("hex"), asked);
      return isOver(who) ? undefined : who;
    },
    mayPublish: (who, topic) => may(who, "publish", topic),
    maySubscribe: (who, filter) => may(who, "subscribe", filter),
    forgetRun(runId) {
      over.add(runId);
      for (const oldest of over) {
        if (over.size <= MAX_IDENTITIES) break;
        over.delete(oldest);
      }
      identities.forget((it) => it?.runId === runId);
    },
    forgetOwner: (agentId) => decisions.forget(({ owner }) => owner === agentId),
    runs: () => new Set(identities.values().flatMap((it) => it?.runId ?? [])),
  };
}

function createMemory<T>(max: number, { clock, onDaemon }: RememberingGuardOptions) {
  const known = new Map<string, { value: T; at: number }>();

  function within<R>(ms: number, done: Promise<R>): Promise<R> {
    return new Promise((resolve, reject) => {
      const cancel = clock.after(ms, () => reject(new Error("it took too long")));
      void done.finally(cancel).then(resolve, reject);
    });
  }

  function patience(): Promise<void> {
    return new Promise((resolve) => {
      const over = () => {
        cancel();
        forget();
        resolve();
      };
      const cancel = clock.after(PATIENCE_MS, over);
      const forget = onDaemon(over);
    });
  }

  function remember(key: string, value: T): T {
    known.delete(key);
    if (value !== undefined) known.set(key, { value, at: clock.monotonic() });
    for (const oldest of known.keys()) {
      if (known.size <= max) break;
      known.delete(oldest);
    }
    return value;
  }

  return {
    values: () => [...known.values()].map(({ value }) => value),
    forget(isIt: (value: T) => boolean): void {
      for (const [key, { value }] of known) if (isIt(value)) known.delete(key);
    },
    /** What was found a moment ago, else what is found now, else what was found last. Else it rejects. */
    async recall(key: string, find: () => Promise<T>): Promise<T> {
      const last = known.get(key);
      if (last && clock.monotonic() - last.at < FRESH_MS) return last.value;
      try {
        return remember(key, await within(ANSWER_MS, find()));
      } catch {
        if (last) return remember(key, last.value);
      }
      await patience();
      return remember(key, await within(ANSWER_MS, find()));
    },
  };
}
