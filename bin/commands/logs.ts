import type { Client, LogLine, LogQuery } from "../../plugins/agent-manager-tool/client/client.js";
import { allAgents } from "../all-agents.js";
import { connect } from "../context.js";
import type { CommandHandler } from "../invocation.js";
import { neutraliseBytes } from "../neutralise.js";
import type { Style, Terminal } from "../output.js";

export interface LogOptions {
  follow?: boolean;
  lines?: number;
  since?: string;
  until?: string;
  previous?: boolean;
  stream?: "stdout" | "stderr";
  raw?: boolean;
  json?: boolean;
}

const DEFAULT_LINES = 20;

/** Shows agent output; with several agents, each line names its agent. */
export const logs: CommandHandler<LogOptions> = async (invocation) => {
  const { operands, options, terminal } = invocation;
  const client = connect(invocation);
  const ids = operands.length > 0 ? operands : await liveAgents(client);
  if (ids.length === 0) {
    terminal.warn("No agents are running. Give an agent ID to see its earlier output.");
    return undefined;
  }
  const printer = linePrinter(ids, options, terminal);
  const { since, until, stream, previous } = options;
  const tail = options.lines ?? (since === undefined ? DEFAULT_LINES : undefined);
  const query: LogQuery = {
    tail,
    // Exact bytes for the terminal or a pipe; JSON holds text anyway.
    encoding: options.json ? "utf8" : "base64",
    since,
    until,
    previous,
    stream,
  };
  if (options.follow) {
    await Promise.all(ids.map((id) => follow(client, id, query, printer.show)));
  } else {
    for (const id of ids) await showPages(client, id, query, printer.show);
  }
  await printer.end();
  return undefined;
};

/** Prints one page, or all pages if the number of lines is not limited. */
async function showPages(client: Client, id: string, query: LogQuery, show: ShowLine): Promise<void> {
  let page = await client.agents.logs(id, query);
  for (;;) {
    for (const line of page.items) await show(id, line);
    if (query.tail !== undefined || page.items.length === 0 || page.next_cursor === undefined) return;
    page = await client.agents.logs(id, { ...query, tail: PAGE_LINES, cursor: page.next_cursor });
  }
}

const PAGE_LINES = 10_000;

async function liveAgents(client: Client): Promise<string[]> {
  return (await allAgents(client)).filter(({ pid }) => pid !== undefined).map(({ agent_id }) => agent_id);
}

type ShowLine = (agentId: string, line: LogLine) => Promise<void>;

async function follow(client: Client, agentId: string, query: LogQuery, show: ShowLine): Promise<void> {
  for await (const line of client.agents.followLogs(agentId, query)) await show(agentId, line);
}

const COLOURS: readonly Style[] = ["cyan", "magenta", "green", "blue", "yellow"];
const LINE_END = Buffer.from("\n");
const GAPS = {
  pruned: "older output of %s was removed; logs.keep in its template sets how much is kept",
  truncated: "agent %s truncated its output file here; earlier output may be missing",
};

function linePrinter(ids: readonly string[], options: LogOptions, terminal: Terminal) {
  const width = Math.max(...ids.map((id) => id.length));
  const prefixes = new Map(
    ids.map((id, index) => {
      const colour = COLOURS[index % COLOURS.length] ?? "cyan";
      return [id, `${terminal.style(`${id.padEnd(width)} |`, colour)} `];
    }),
  );
  /** The source whose last line has no line end yet. */
  let open: string | undefined;
  const show: ShowLine = async (id, line) => {
    if (line.gap !== undefined) terminal.warn(GAPS[line.gap].replace("%s", id));
    if (options.json) return terminal.json({ agent_id: id, ...line }, "line");
    const bytes = Buffer.from(line.base64 ?? "", "base64");
    const shown = terminal.isTTY && !options.raw ? Buffer.from(neutraliseBytes(bytes)) : bytes;
    const source = `${id} ${line.run_id} ${line.stream}`;
    const goesOn = open === source && line.gap === undefined;
    const prefix = ids.length > 1 && !goesOn ? Buffer.from(prefixes.get(id) ?? "") : Buffer.alloc(0);
    const before = open === undefined || goesOn ? [] : [LINE_END];
    open = line.partial ? source : undefined;
    await terminal.write(Buffer.concat([...before, prefix, shown, ...(line.partial ? [] : [LINE_END])]));
  };
  return {
    show,
    async end() {
      if (open !== undefined) await terminal.write(LINE_END);
    },
  };
}
