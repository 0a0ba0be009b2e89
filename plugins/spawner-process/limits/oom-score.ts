import { readFileSync, writeFileSync } from "node:fs";

const SELF = "/proc/self/oom_score_adj";
/** So much sooner than the daemon is an agent killed when the machine runs out of memory (proc(5)). */
const AGENTS_ABOVE = 500;
const HIGHEST = 1_000;
/** So little is the daemon to be killed, where it may say so. */
const DAEMON = -500;

/** What agents are given. */
export function oomScoreOfAgents(file = SELF): number | undefined {
  const own = ownScore(file);
  return own === undefined ? undefined : Math.min(HIGHEST, Math.max(0, own) + AGENTS_ABOVE);
}

/**
 * Lowers the daemon's own where nobody has chosen one. It needs CAP_SYS_RESOURCE; without, it stays.
 * What it starts and does not raise, inherits it: the shims, which tell how agents ended.
 */
export function protectDaemon(file = SELF): void {
  if (ownScore(file) !== 0) return;
  try {
    writeFileSync(file, String(DAEMON));
  } catch {
    // Not allowed to; agents stand above it all the same.
  }
}

function ownScore(file: string): number | undefined {
  try {
    return Number(readFileSync(file, "utf8"));
  } catch {
    return undefined;
  }
}
