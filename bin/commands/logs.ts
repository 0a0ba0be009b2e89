import type { Client, LogLine, LogQuery } from "../../plugins/agent-manager-tool/client.js";
import { allAgents } from "../all-agents.js";
import { connect } from "../context.js";
import type { CommandHandler } from "../invocation.js";
import { neutraliseBytes } from "../neutralise.js";
import type { Style, Terminal } from "../output.js";

export interface LogOptions {
  follow?: boolean;
  lines: number;
  previous?: boolean;
  stream?: "stdout" | "stderr";
  raw?: boolean;
  json?: boolean;
}

/** Shows what agents print; of several, every line says whose it is. */
export const logs: CommandHandler<LogOptions> = async (invocation) => {
  const { operands, options, terminal } = invocation;
  const client = connect(invocation);
  const ids = operands.length > 0 ? operands : await liveAgents(client);
  if (ids.length === 0) {
    terminal.warn("No agent is running; name one to see what it printed.");
    return undefined;
  }
  const show = linePrinter(ids, options, terminal);
  const query: LogQuery = {
    tail: options.lines,
    // Exact bytes, for those who get them; JSON is text anyway.
    encoding: options.json ? "utf8" : "base64",
    ...(options.previous ? { previous: true } : {}),
    ...(options.stream === undefined ? {} : { stream: options.stream }),
  };
  if (options.follow) {
    await Promise.all(ids.map((id) => follow(client, id, query, show)));
    return undefined;
  }
  for (const id of ids) {
    for (const line of (await client.agents.logs(id, query)).items) await show(id, line);
  }
  return undefined;
};

async function liveAgents(client: Client): Promise<string[]> {
  return (await allAgents(client)).filter(({ pid }) => pid !== undefined).map(({ agent_id }) => agent_id);
}

type ShowLine = (agentId: string, line: LogLine) => Promise<void>;

async function follow(client: Client, agentId: string, query: LogQuery, show: ShowLine): Promise<void> {
  for await (const line of client.agents.followLogs(agentId, query)) await show(agentId, line);
}

const COLOURS: readonly Style[] = ["cyan", "magenta", "green", "blue", "yellow"];
const LINE_END = Buffer.from("\n");

function linePrinter(ids: readonly string[], options: LogOptions, terminal: Terminal): ShowLine {
  const width = Math.max(...ids.map((id) => id.length));
  const prefixes = new Map(
    ids.map((id, index) => {
      const colour = COLOURS[index % COLOURS.length] ?? "cyan";
      return [id, `${terminal.style(`${id.padEnd(width)} |`, colour)} `];
    }),
  );
  return async (id, line) => {
    if (options.json) return terminal.json({ agent_id: id, ...line }, "line");
    const bytes = Buffer.from(line.base64 ?? "", "base64");
    const shown = terminal.isTTY && !options.raw ? Buffer.from(neutraliseBytes(bytes)) : bytes;
    const prefix = ids.length > 1 ? Buffer.from(prefixes.get(id) ?? "") : Buffer.alloc(0);
    await terminal.write(Buffer.concat([prefix, shown, LINE_END]));
  };
}
