import type { PluginInfo } from "../../core/contracts/plugin.js";
import { connect } from "../context.js";
import type { CommandHandler } from "../invocation.js";
import type { Style } from "../output.js";
import { table } from "../table.js";

const STATE_STYLES: Record<PluginInfo["state"], readonly Style[]> = {
  loaded: ["dim"],
  started: ["green"],
  degraded: ["red", "bold"],
  stopped: ["dim"],
};

/** Lists the daemon's plugins and the problems of degraded ones. */
export const plugins: CommandHandler<{ json?: boolean }> = async (invocation) => {
  const { options, terminal } = invocation;
  const answer = await connect(invocation).plugins();
  if (options.json) {
    terminal.json(answer);
    return undefined;
  }
  const lines = table(terminal, answer.items, [
    { header: "PLUGIN", value: ({ name }) => name, style: () => ["bold"] },
    { header: "STATE", value: ({ state }) => state, style: ({ state }) => STATE_STYLES[state] ?? [] },
    { header: "VERSION", value: ({ version }) => version },
    { header: "FROM", value: ({ origin }) => origin },
    { header: "PROBLEM", value: ({ problem }) => problem, flexible: true },
  ]);
  for (const line of lines) terminal.print(line);
  return undefined;
};
