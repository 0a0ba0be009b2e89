import type { Agent } from "../../core/contracts/agent.js";
import { formatSize, parseDuration } from "../../core/lib/units.js";
import type { Client } from "../../plugins/agent-manager-tool/client/client.js";
import { formatPercent, usageColumns } from "../agent-view.js";
import { allAgents } from "../all-agents.js";
import { connect } from "../context.js";
import type { CommandHandler, Invocation } from "../invocation.js";
import type { Terminal } from "../output.js";
import { openScreen } from "../screen.js";
import { table } from "../table.js";

export interface TopOptions {
  sort: "cpu" | "memory";
  interval: string;
  once?: boolean;
  all?: boolean;
  json?: boolean;
}

/** Shows the resource usage of running agents, highest first: live on a terminal, otherwise once. */
export const top: CommandHandler<TopOptions> = async (invocation) => {
  const { options, terminal } = invocation;
  // Fails at once if no daemon is running.
  const agents = await liveAgents(connect(invocation), options);
  if (options.json) terminal.json({ items: sortByUse(agents, options.sort) });
  else if (terminal.isTTY && !options.once) await watch(invocation, agents);
  else for (const line of linesOf(terminal, agents, options.sort)) terminal.print(line);
  return undefined;
};

async function liveAgents(client: Client, { all }: TopOptions): Promise<Agent[]> {
  return (await allAgents(client, all)).filter(({ pid }) => pid !== undefined);
}

const SHORTEST_PAUSE_MS = 100;
const KEYS = "c: by CPU  m: by memory  q: quit";

/** Redraws until `q` or Ctrl-C. */
async function watch(invocation: Invocation<TopOptions>, first: readonly Agent[]): Promise<void> {
  const { options, terminal } = invocation;
  const client = connect(invocation, { patient: true });
  const pauseMs = Math.max(SHORTEST_PAUSE_MS, parseDuration(options.interval) ?? 0);
  let { sort } = options;
  let agents = first;
  let end = () => {};
  let isOver = false;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const draw = () => {
    const room = { ...terminal, columns: screen.columns };
    const lines = linesOf(room, agents, sort);
    screen.draw([...lines.slice(0, screen.rows - 1), terminal.style(KEYS, "dim")]);
  };
  const screen = openScreen(process.stdout, process.stdin, {
    resized: draw,
    key(key) {
      if (key === "q" || key === "interrupt") end();
      if (key === "c" || key === "m") sort = key === "c" ? "cpu" : "memory";
      draw();
    },
  });
  const look = async () => {
    while (!isOver) {
      draw();
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      agents = await liveAgents(client, options);
    }
  };
  try {
    await Promise.race([ended, look()]);
  } finally {
    isOver = true;
    screen.close();
  }
}

/** Lays out the totals and a line for each agent. */
export function linesOf(terminal: Terminal, agents: readonly Agent[], sort: TopOptions["sort"]): string[] {
  if (agents.length === 0) return ["No agents are running."];
  const total = (value: (resources: NonNullable<Agent["resources"]>) => number) =>
    agents.reduce((sum, { resources }) => sum + (resources ? value(resources) : 0), 0);
  const processes = total((it) => it.processes);
  const summary = [
    `${terminal.style(String(agents.length), "bold")} running ${agents.length === 1 ? "agent" : "agents"}`,
    `CPU ${formatPercent(total((it) => it.cpu_percent))} of one core`,
    `memory ${formatSize(total((it) => it.memory_bytes))}`,
    `${processes} ${processes === 1 ? "process" : "processes"}`,
  ];
  return [summary.join(", "), "", ...table(terminal, sortByUse(agents, sort), usageColumns(Date.now()))];
}

/** Sorts agents by usage, highest first; those without samples last. */
export function sortByUse(agents: readonly Agent[], sort: TopOptions["sort"]): Agent[] {
  const use = ({ resources }: Agent) => resources?.[sort === "cpu" ? "cpu_percent" : "memory_bytes"] ?? -1;
  return [...agents].sort((a, b) => use(b) - use(a) || (a.agent_id < b.agent_id ? -1 : 1));
}
