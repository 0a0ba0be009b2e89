import type { Logger } from "../contracts/plugin.js";

/** What is wrong with the daemon and no request asked about. */
export interface Problems {
  /** Sets the problem of a key; `undefined`: it is over. Logged when it begins or changes. */
  readonly report: (key: string, text: string | undefined) => void;
  list(): string[];
}

export function createProblems(log: Logger): Problems {
  const problems = new Map<string, string>();
  return {
    report(key, text) {
      if (problems.get(key) === text) return;
      if (text === undefined) problems.delete(key);
      else problems.set(key, text);
      if (text !== undefined) log.warn({ problem: text }, "the daemon is degraded");
    },
    list: () => [...problems.values()],
  };
}
