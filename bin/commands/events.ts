import { isOpenStarryError } from "../../core/contracts/errors.js";
import type {
  Client,
  DaemonEvent,
  EventGap,
  EventPage,
  Exit,
} from "../../plugins/agent-manager-tool/client/client.js";
import { describeExit } from "../agent-view.js";
import { allAgents } from "../all-agents.js";
import { connect } from "../context.js";
import type { CommandHandler, Invocation } from "../invocation.js";
import { neutralise } from "../neutralise.js";
import type { Style, Terminal } from "../output.js";

export interface EventOptions {
  follow?: boolean;
  lines: number;
  after?: number;
  agent?: string;
  json?: boolean;
}

const PAGE = 1_000;

/** Shows the last events; with `--follow`, also new ones. */
export const events: CommandHandler<EventOptions> = async (invocation) => {
  const { options, terminal } = invocation;
  const client = connect(invocation);
  if (options.agent !== undefined) {
    const read = await showHistories(client, [options.agent], options, terminal);
    if (options.follow) await stream(invocation, read);
    return undefined;
  }
  // Fails at once if no daemon is running.
  const newest = await newestEvent(client);
  if (newest !== undefined) {
    const after = options.after ?? Math.max(0, newest - options.lines);
    if (options.follow || after < newest) await stream(invocation, after, newest);
  } else if (options.follow) await stream(invocation, options.after);
  else {
    const agents = (await allAgents(client)).map(({ agent_id }) => agent_id);
    await showHistories(client, agents, options, terminal);
  }
  return undefined;
};

/** Answers the ID of the newest event; `undefined` for an agent, which may not read the daemon's status. */
async function newestEvent(client: Client): Promise<number | undefined> {
  try {
    return (await client.daemon.status()).last_event_id ?? 0;
  } catch (error) {
    if (isOpenStarryError(error) && error.code === "forbidden") return undefined;
    throw error;
  }
}

/** Prints the last events of these agents, or those after `--after`. Answers the ID of the newest event read. */
async function showHistories(
  client: Client,
  agents: readonly string[],
  options: EventOptions,
  terminal: Terminal,
): Promise<number> {
  const { after = 0, lines } = options;
  let found: DaemonEvent[] = [];
  for (const agent of agents) {
    let cursor: number | string | undefined = after;
    while (cursor !== undefined) {
      const page: EventPage = await client.agents.events(agent, { after: cursor, limit: PAGE });
      found.push(...page.items);
      if (options.after === undefined && found.length > 2 * PAGE) found = last(found, Math.max(lines, 1));
      cursor = page.next_cursor;
    }
  }
  const shown = options.after === undefined ? last(found, lines) : last(found, found.length);
  for (const event of shown) print(terminal, event, options);
  return found.reduce((newest, { id }) => Math.max(newest, id), after);
}

function last(found: DaemonEvent[], lines: number): DaemonEvent[] {
  return found.sort((a, b) => a.id - b.id).slice(Math.max(0, found.length - lines));
}

/** Prints the events after that one (absent: only new ones), up to `newest` unless `--follow` is given. */
async function stream(
  invocation: Invocation<EventOptions>,
  after: number | undefined,
  newest = Number.POSITIVE_INFINITY,
): Promise<void> {
  const { options, terminal } = invocation;
  const stopped = new AbortController();
  const items = connect(invocation, { patient: true }).events({
    lastEventId: after,
    agent_id: options.agent,
    signal: stopped.signal,
  });
  for await (const event of items) {
    print(terminal, event, options);
    // Pruned events count as printed.
    const printed = isGap(event) ? event.next - 1 : event.id;
    if (!options.follow && printed >= newest) break;
  }
  stopped.abort();
}

function isGap(event: DaemonEvent | EventGap): event is EventGap {
  return event.type === "gap";
}

function print(terminal: Terminal, event: DaemonEvent | EventGap, { json }: EventOptions): void {
  if (json) terminal.json(event, "line");
  else if (isGap(event)) terminal.warn(`Events ${event.after + 1} to ${event.next - 1} were pruned.`);
  else terminal.print(lineOf(terminal, event));
}

function lineOf({ style }: Terminal, { id, at, type, agent_id, data }: DaemonEvent): string {
  const subject = agent_id === undefined ? "" : `  ${style(neutralise(agent_id), "bold")}`;
  const head = `${style(`${id}  ${at}`, "dim")}  ${style(neutralise(type), ...styleOf(type))}${subject}`;
  return `${head}  ${neutralise(wordsOf(type, { ...data }))}`.trimEnd();
}

/** Words the most frequent events; lists the fields of the others. */
function wordsOf(type: string, data: Record<string, unknown>): string {
  const because = data.reason === undefined ? "" : `: ${data.reason}`;
  if (type === "agent.state") return `${data.from} → ${data.to}${because}`;
  if (type === "agent.exited") {
    const exit = data as unknown as Exit;
    return `${describeExit(exit)}, cause ${exit.cause}, by ${exit.actor}`;
  }
  if (type === "agent.created") return `from template ${data.template_id}, by ${data.actor}`;
  return Object.entries(data)
    .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" ");
}

function styleOf(type: string): readonly Style[] {
  if (/degraded|invalid|quarantined|exited/.test(type)) return ["yellow"];
  return type.startsWith("daemon.") ? ["cyan"] : [];
}
