import type { Why } from "../../plugins/agent-manager-tool/client.js";
import { paintState } from "../agent-view.js";
import { hintForCommandLine } from "../cli-hints.js";
import { connect } from "../context.js";
import type { CommandHandler } from "../invocation.js";
import { neutralise, neutraliseLines } from "../neutralise.js";
import type { Terminal } from "../output.js";
import { table } from "../table.js";

/** Explains an agent's state: what happened, what comes next, what to do. */
export const why: CommandHandler<{ json?: boolean }> = async (invocation) => {
  const { operands, options, terminal } = invocation;
  const [agentId = ""] = operands;
  const answer = await connect(invocation).agents.why(agentId);
  if (options.json) terminal.json(answer);
  else explain(terminal, answer);
  return undefined;
};

function explain(terminal: Terminal, answer: Why): void {
  const { print, style } = terminal;
  print(`${style(answer.agent_id, "bold")} is ${paintState(terminal, answer.state)}`);
  print("");
  print(neutraliseLines(answer.summary));
  print(`${style("Next:", "bold")} ${neutralise(answer.next)}`);
  print(`${style("To do:", "bold")} ${neutralise(hintForCommandLine(answer.hint))}`);
  if (answer.last_runs.length > 0) {
    print("");
    const lines = table(terminal, answer.last_runs, [
      { header: "ENDED", value: ({ ended_at }) => ended_at },
      { header: "LIVED", value: ({ uptime }) => uptime, align: "right" },
      { header: "CAUSE", value: ({ cause }) => cause },
      { header: "BY", value: ({ actor }) => actor },
      { header: "HOW", value: ({ status }) => status, flexible: true },
    ]);
    for (const line of lines) print(line);
  }
  if (!answer.output_tail) return;
  print("");
  print(style("The last lines that it printed:", "dim"));
  for (const line of neutraliseLines(answer.output_tail.trimEnd()).split("\n")) print(`  ${line}`);
}
