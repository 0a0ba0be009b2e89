import { connect } from "../context.js";
import type { CommandHandler } from "../invocation.js";
import { waitForEnd } from "../wait-for-end.js";

/** Waits until an agent has no process and none to come, and exits as it did. */
export const wait: CommandHandler<{ timeout?: string; result?: boolean; json?: boolean }> = async (
  invocation,
) => {
  const { operands, options } = invocation;
  const [agentId = ""] = operands;
  // Says at once when there is no daemon, or no such agent.
  await connect(invocation).agents.get(agentId);
  return waitForEnd(invocation, agentId, { result: options.result ?? false });
};
