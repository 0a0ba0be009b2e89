import type { Agent, AgentState } from "../../core/contracts/agent.js";
import { agentColumns } from "../agent-view.js";
import { allAgents } from "../all-agents.js";
import { connect } from "../context.js";
import type { CommandHandler } from "../invocation.js";
import { table } from "../table.js";

export interface ListOptions {
  tree?: boolean;
  all?: boolean;
  state?: AgentState[];
  template?: string;
  label?: Record<string, string>;
  json?: boolean;
}

/** Lists agents in order of creation, or as a tree of parents and children. */
export const list: CommandHandler<ListOptions> = async (invocation) => {
  const { options, terminal } = invocation;
  const agents = (await allAgents(connect(invocation), options.all)).filter((agent) =>
    isWanted(agent, options),
  );
  if (options.json) {
    terminal.json({ items: agents });
    return undefined;
  }
  if (agents.length === 0) {
    terminal.print("No agents.");
    return undefined;
  }
  const tree = options.tree ? growTree(agents) : undefined;
  const rows = tree?.map(({ agent }) => agent) ?? agents;
  const branches = new Map(tree?.map(({ agent, branch }) => [agent.agent_id, branch]));
  const columns = agentColumns(Date.now(), ({ agent_id }) => branches.get(agent_id) ?? "");
  for (const line of table(terminal, rows, columns)) terminal.print(line);
  return undefined;
};

export function isWanted(agent: Agent, { state, template, label = {} }: ListOptions): boolean {
  return (
    (state === undefined || state.includes(agent.state)) &&
    (template === undefined || agent.template_id === template) &&
    Object.entries(label).every(([name, value]) => agent.labels[name] === value)
  );
}

/** Orders agents as a tree, with the lines to draw before each. An agent whose parent is not listed is at the top. */
export function growTree(agents: readonly Agent[]): { agent: Agent; branch: string }[] {
  const known = new Set(agents.map(({ agent_id }) => agent_id));
  const grown: { agent: Agent; branch: string }[] = [];
  const seen = new Set<string>();
  const add = (siblings: readonly Agent[], trunk: string, isTop: boolean) => {
    for (const [index, agent] of siblings.entries()) {
      // A cycle in the records must not loop forever.
      if (seen.has(agent.agent_id)) continue;
      seen.add(agent.agent_id);
      const isLast = index === siblings.length - 1;
      grown.push({ agent, branch: isTop ? "" : `${trunk}${isLast ? "└─ " : "├─ "}` });
      const children = agents.filter(({ parent_id }) => parent_id === agent.agent_id);
      add(children, isTop ? "" : `${trunk}${isLast ? "   " : "│  "}`, false);
    }
  };
  add(
    agents.filter(({ parent_id }) => parent_id === undefined || !known.has(parent_id)),
    "",
    true,
  );
  add(agents, "", true);
  return grown;
}
