import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { Agent } from "../../core/index.js";

export interface RunTokens {
  mint(runId: string): string;
  /** The live agent whose current run this token was made for. */
  agentOf(token: string): Agent | undefined;
}

/**
 * The tokens of runs: `RUN_ID.HMAC-SHA256(key, RUN_ID)` in base64url (RFC 2104). Nothing is stored: a
 * token is valid while its run lives, over a restart of the daemon too, and is worth nothing after.
 */
export function createRunTokens(key: string, liveRun: (runId: string) => Agent | undefined): RunTokens {
  const mint = (runId: string) => `${runId}.${createHmac("sha256", key).update(runId).digest("base64url")}`;
  return {
    mint,
    agentOf(token) {
      const runId = token.slice(0, token.lastIndexOf("."));
      return timingSafeEqual(sha256(token), sha256(mint(runId))) ? liveRun(runId) : undefined;
    },
  };
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
