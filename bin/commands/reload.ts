import { connect } from "../context.js";
import type { CommandHandler } from "../invocation.js";
import { neutralise } from "../neutralise.js";

/** Makes the daemon read its config again. An invalid config changes nothing. */
export const reload: CommandHandler<{ json?: boolean }> = async (invocation) => {
  const { options, terminal } = invocation;
  const answer = await connect(invocation).daemon.reload();
  if (options.json) {
    terminal.json(answer);
    return undefined;
  }
  for (const line of answer.applied) terminal.print(`applied: ${neutralise(line)}`);
  for (const line of answer.needs_restart) {
    terminal.print(`${terminal.style("needs restart:", "yellow")} ${neutralise(line)}`);
  }
  if (answer.applied.length + answer.needs_restart.length === 0) terminal.print("Nothing changed.");
  if (answer.needs_restart.length > 0) terminal.print("Next: openstarry-daemon restart");
  return undefined;
};
