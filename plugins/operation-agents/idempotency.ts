import { createHash, createHmac } from "node:crypto";
import {
  type Agent,
  type AgentLookup,
  type Clock,
  ERROR_CODES,
  type ErrorCode,
  isOpenStarryError,
  type JournalAccess,
  type Memo,
  OpenStarryError,
} from "../../core/index.js";

export interface KeyedRequest {
  principalId: string;
  /** The caller's `Idempotency-Key`. */
  key: string;
  /** What makes two requests the same, as a JSON value. */
  body: unknown;
}

export interface Idempotency {
  /**
   * Runs `first` for the first request with a key, and gives later ones the answer of that one, or its
   * error. `first` journals the memo that it is given together with what it creates; `recall` answers
   * for a request of which the memo is known and the answer is not (the daemon died in between).
   * Rejects with `idempotency_mismatch` when the key was used with another body, and with
   * `agent_not_found` when the agent that was answered is gone.
   */
  once(
    request: KeyedRequest,
    first: (memoOf: (agentId: string) => Memo) => Promise<Agent>,
    recall: (agentId: string) => Promise<Agent>,
  ): Promise<Agent>;
}

interface Kept {
  body: string;
  agent_id: string;
  agent?: Agent;
  error?: { code: ErrorCode; detail: string; hint?: string; data: Record<string, unknown> };
}

const KEPT_MS = 24 * 3_600_000;

/** Keys are of one principal each, and are kept for 24 h, over restarts of the daemon. */
export function createIdempotency(
  { agents, journal }: { agents: Pick<AgentLookup, "get">; journal: Pick<JournalAccess, "memo" | "putMemo"> },
  clock: Pick<Clock, "now">,
  onForgotten: (error: unknown) => void,
): Idempotency {
  const underWay = new Map<string, { body: string; answer: Promise<Agent> }>();

  return {
    async once(request, first, recall) {
      const memoKey = hash(`${request.principalId}\0${request.key}`);
      // Keyed by what is kept nowhere: the digest tells nobody about values in the body.
      const body = createHmac("sha256", request.key).update(canonical(request.body)).digest("hex");
      const rival = underWay.get(memoKey);
      if (rival) return rival.body === body ? rival.answer : Promise.reject(mismatch(request.key));

      const memoOf = (kept: Kept): Memo => ({
        key: `idempotency:${memoKey}`,
        value: kept,
        expiresAtMs: clock.now() + KEPT_MS,
      });
      let createdId: string | undefined;
      const answer = (async () => {
        const kept = (await journal.memo(`idempotency:${memoKey}`)) as Kept | undefined;
        if (kept && kept.body !== body) throw mismatch(request.key);
        if (kept) {
          const replayed = replay(kept);
          const now = agents.get(kept.agent_id);
          // Another agent of its id is not the one that was made for this key.
          if (!now || (replayed && now.created_at !== replayed.created_at)) throw gone();
          return replayed ?? recall(kept.agent_id);
        }
        return first((id) => {
          createdId = id;
          return memoOf({ body, agent_id: id });
        });
      })();
      underWay.set(memoKey, { body, answer });
      void keepOutcome(answer, async (outcome) => {
        // Refused before anything was journaled, or known already: there is nothing to keep.
        if (createdId === undefined) return;
        await journal.putMemo(memoOf({ body, agent_id: createdId, ...outcome })).catch(onForgotten);
      }).finally(() => underWay.delete(memoKey));
      return answer;
    },
  };
}

/** Not waited for by the caller: without it, the next request with the key is told the agent as it is. */
async function keepOutcome(answer: Promise<Agent>, keep: (outcome: Partial<Kept>) => Promise<void>) {
  try {
    await keep({ agent: await answer });
  } catch (error) {
    if (!isOpenStarryError(error) || !FINAL.includes(error.code)) return;
    const { code, message: detail, hint, data } = error;
    await keep({ error: { code, detail, data, ...(hint === undefined ? {} : { hint }) } });
  }
}

/** Errors that come after the agent was created, and belong to it. */
const FINAL: readonly ErrorCode[] = ["spawn_failed", "spawn_vetoed"];

function replay({ agent, error }: Kept): Agent | undefined {
  if (error && error.code in ERROR_CODES) throw new OpenStarryError(error.code, error);
  return agent;
}

function mismatch(key: string): OpenStarryError {
  return new OpenStarryError("idempotency_mismatch", {
    detail: `the Idempotency-Key "${key.slice(0, 80)}" was used for another request within the last 24 hours`,
    hint: "repeat the request exactly as it was, or send this one with a new key",
  });
}

function gone(): OpenStarryError {
  return new OpenStarryError("agent_not_found", {
    detail: "the agent that this Idempotency-Key made is gone",
    hint: "use a new Idempotency-Key to make another",
  });
}

function hash(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** JSON with sorted keys: the order of a body's keys says nothing. */
function canonical(value: unknown): string {
  return (
    JSON.stringify(value, (_, it: unknown) =>
      typeof it === "object" && it !== null && !Array.isArray(it)
        ? Object.fromEntries(Object.entries(it).sort(([a], [b]) => (a < b ? -1 : 1)))
        : it,
    ) ?? ""
  );
}
