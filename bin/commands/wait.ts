import { connect } from "../context.js";
import type { CommandHandler } from "../invocation.js";
import { waitForEnd } from "../wait-for-end.js";

/** Waits until an agent has no process and no start ahead, and exits with its code. */
export const wait: CommandHandler<{ timeout?: string; result?: boolean; json?: boolean }> = async (
  invocation,
) => {
  const { operands, options } = invocation;
  const [agentId = ""] = operands;
  // Fails at once if no daemon is running or the agent does not exist.
  await connect(invocation).agents.get(agentId);
  return waitForEnd(invocation, agentId, { result: options.result ?? false });
};
