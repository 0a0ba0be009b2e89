import type { DaemonEvent, EventGap, Exit } from "../../plugins/agent-manager-tool/client.js";
import { describeExit } from "../agent-view.js";
import { connect } from "../context.js";
import type { CommandHandler } from "../invocation.js";
import { neutralise } from "../neutralise.js";
import type { Style, Terminal } from "../output.js";

export interface EventOptions {
  follow?: boolean;
  lines: number;
  after?: number;
  agent?: string;
  json?: boolean;
}

/** Shows what happened, and goes on with what happens where that is asked for. */
export const events: CommandHandler<EventOptions> = async (invocation) => {
  const { options, terminal } = invocation;
  // Says at once when there is no daemon.
  const { last_event_id: newest = 0 } = await connect(invocation).daemon.status();
  const after = options.after ?? Math.max(0, newest - options.lines);
  if (!options.follow && after >= newest) return undefined;
  const stopped = new AbortController();
  const stream = connect(invocation, { patient: true }).events({
    lastEventId: after,
    signal: stopped.signal,
  });
  for await (const event of stream) {
    if (isWanted(event, options)) print(terminal, event, options);
    // Those that were pruned count as told.
    const told = isGap(event) ? event.next - 1 : event.id;
    if (!options.follow && told >= newest) break;
  }
  stopped.abort();
  return undefined;
};

function isGap(event: DaemonEvent | EventGap): event is EventGap {
  return event.type === "gap";
}

function isWanted(event: DaemonEvent | EventGap, { agent }: EventOptions): boolean {
  return agent === undefined || isGap(event) || event.agent_id === agent;
}

function print(terminal: Terminal, event: DaemonEvent | EventGap, { json }: EventOptions): void {
  if (json) terminal.json(event, "line");
  else if (isGap(event)) terminal.warn(`Events ${event.after + 1} to ${event.next - 1} were pruned.`);
  else terminal.print(lineOf(terminal, event));
}

function lineOf({ style }: Terminal, { id, at, type, agent_id, data }: DaemonEvent): string {
  const subject = agent_id === undefined ? "" : `  ${style(neutralise(agent_id), "bold")}`;
  const head = `${style(`${id}  ${at}`, "dim")}  ${style(neutralise(type), ...styleOf(type))}${subject}`;
  return `${head}  ${neutralise(wordsOf(type, data))}`.trimEnd();
}

/** What an event says, in words where it is one of those that happen all the time. */
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
