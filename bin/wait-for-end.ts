import type { Agent } from "../core/contracts/agent.js";
import { isOpenStarryError } from "../core/contracts/errors.js";
import { formatDuration, parseDuration } from "../core/lib/units.js";
import type { Client } from "../plugins/agent-manager-tool/client/client.js";
import { describeExit, exitCodeOfRun } from "./agent-view.js";
import { connect } from "./context.js";
import type { Invocation } from "./invocation.js";
import { neutralise, neutraliseLines } from "./neutralise.js";

/**
 * Waits until an agent has no process and no start ahead, and prints how it ended. With `result` it prints the agent's
 * result, and how it ended to standard error. Answers the exit code: the agent's own, 128 plus the number of the signal
 * that killed it, or 1 if it never ran or its exit status is unknown.
 */
export async function waitForEnd(
  invocation: Invocation<{ timeout?: string; json?: boolean }>,
  agentId: string,
  { result: wantsResult }: { result: boolean },
): Promise<number> {
  const { options, terminal } = invocation;
  const client = connect(invocation, { patient: true });
  const timeoutMs = options.timeout === undefined ? undefined : parseDuration(options.timeout);
  const agent = await client.agents.wait(agentId, {
    for: "ended",
    timeoutMs,
  });
  const result = wantsResult ? await resultOf(client, agentId) : undefined;
  if (options.json) {
    terminal.json(wantsResult ? { agent, result } : agent);
  } else if (wantsResult) {
    if (result !== undefined) await terminal.write(terminal.isTTY ? shownResult(result) : result);
    terminal.warn(endOf(agent));
  } else {
    terminal.print(endOf(agent));
  }
  return exitCodeOfRun(agent.last_exit);
}

async function resultOf(client: Client, agentId: string): Promise<string | undefined> {
  try {
    return (await client.agents.result(agentId)).result;
  } catch (error) {
    // Already deleted (`remove_after`), or without a result: neither is a failure of this command.
    if (isOpenStarryError(error) && /^(result|agent)_not_found$/.test(error.code)) return undefined;
    throw error;
  }
}

function shownResult(result: string): string {
  return `${neutraliseLines(result).replace(/\n$/, "")}\n`;
}

function endOf({ agent_id, state, last_exit: exit }: Agent): string {
  if (!exit) return `${agent_id} never ran (${state})`;
  const livedMs = Date.parse(exit.ended_at) - Date.parse(exit.started_at ?? "");
  const was = exit.kind === "signaled" ? "was " : "";
  return neutralise(
    `${agent_id} ${was}${describeExit(exit)}${livedMs >= 0 ? ` after ${formatDuration(livedMs)}` : ""}`,
  );
}
