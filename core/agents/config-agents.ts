import type { ConfigAgent } from "../contracts/config.js";
import { OpenStarryError, toOpenStarryError } from "../contracts/errors.js";

export interface ConfigAgentsCheck {
  agents: readonly ConfigAgent[];
  /** The config file, for messages. */
  file: string | undefined;
  /** It has a record already, and is not made anew. */
  isKnown(agentId: string): boolean;
  /** Rejects with what is wrong with a new one. */
  check(agent: ConfigAgent): Promise<unknown>;
}

/**
 * Checks the config's agents that are to be made, all of them before any is, so that a config that is
 * refused leaves nothing half-started. Rejects with one error that names the file and every place; its
 * code is that of the mistake where there is just one, else `config_invalid`.
 */
export async function checkConfigAgents({ agents, file, isKnown, check }: ConfigAgentsCheck): Promise<void> {
  const problems: { place: string; error: OpenStarryError }[] = [];
  for (const [index, agent] of agents.entries()) {
    if (isKnown(agent.agent_id)) continue;
    try {
      await check(agent);
    } catch (error) {
      problems.push({ place: `agents[${index}] (${agent.agent_id})`, error: toOpenStarryError(error) });
    }
  }
  const [first, ...more] = problems;
  if (!first) return;
  const where = file === undefined ? "" : `config ${file}: `;
  if (more.length === 0) {
    const { code, message, hint, data } = first.error;
    const detail = `${where}${first.place}: ${message}`;
    throw new OpenStarryError(code, {
      detail,
      data,
      cause: first.error,
      ...(hint === undefined ? {} : { hint }),
    });
  }
  const lines = problems.map(
    ({ place, error: { message, hint } }) => `${place}: ${message}${hint === undefined ? "" : ` (${hint})`}`,
  );
  throw new OpenStarryError("config_invalid", {
    detail: `${where}${lines.join("; ")}`,
    hint: "correct these agents or their templates; none of the new agents was started",
  });
}
