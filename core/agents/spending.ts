import type { Usage } from "../contracts/agent.js";
import type { AgentWorker } from "./worker/worker.js";

const NOTHING: Usage = { input_tokens: 0, output_tokens: 0, cost_usd: 0 };

/**
 * What a run has used by its new report, and what that is more than `before`. A figure that is lower than
 * before, or no number, is left as it was: what was used once is not given back.
 */
export function risen(before: Usage = NOTHING, report: Usage): { total: Usage; by: Usage } {
  const higher = (was: number, is: number) => (Number.isFinite(is) && is > was ? is : was);
  const total = combine(before, report, higher);
  return { total, by: combine(total, before, (is, was) => is - was) };
}

export function addUsage(to: Usage = NOTHING, more: Usage): Usage {
  return combine(to, more, (was, by) => was + by);
}

function combine(left: Usage, right: Usage, how: (left: number, right: number) => number): Usage {
  return {
    input_tokens: how(left.input_tokens, right.input_tokens),
    output_tokens: how(left.output_tokens, right.output_tokens),
    cost_usd: how(left.cost_usd, right.cost_usd),
  };
}

/** Who started it, who started that one, and so on; nearest first. */
export function ancestorsOf(worker: AgentWorker, workers: ReadonlyMap<string, AgentWorker>): AgentWorker[] {
  const found = new Set<AgentWorker>([worker]);
  for (const it of found) {
    const parent = workers.get(it.stored.agent.parent_id ?? "");
    if (parent) found.add(parent);
  }
  return [...found].slice(1);
}
