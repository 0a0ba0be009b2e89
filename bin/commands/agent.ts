import type { Agent, Usage } from "../../core/contracts/agent.js";
import { formatDuration, formatSize, parseDuration } from "../../core/lib/units.js";
import type { Client } from "../../plugins/agent-manager-tool/client/client.js";
import {
  describeEnd,
  describeExit,
  describeLimits,
  formatPercent,
  paintState,
  since,
} from "../agent-view.js";
import { connect } from "../context.js";
import { EXIT } from "../exit-codes.js";
import type { CommandHandler, Invocation } from "../invocation.js";
import { neutralise } from "../neutralise.js";
import type { Terminal } from "../output.js";
import { printError } from "../print-error.js";
import { facts } from "../table.js";

interface VerbOptions {
  json?: boolean;
  wait?: boolean;
  grace?: string;
  force?: boolean;
  signal?: string;
}

type Verb = (client: Client, agentId: string, options: VerbOptions) => Promise<Agent>;

const waitOf = ({ wait }: VerbOptions) => (wait === false ? { wait: false } : {});
const endingOf = ({ grace, force }: VerbOptions) => ({
  graceMs: grace === undefined ? undefined : parseDuration(grace),
  force,
});

/** The handlers of `agent stop|start|restart|signal|rm ID…`. Each agent is handled on its own: one refusal does not hold up the others. */
export const stop = forEach((client, id, options) =>
  client.agents.stop(id, { ...waitOf(options), ...endingOf(options) }),
);
export const start = forEach((client, id, options) => client.agents.start(id, waitOf(options)));
export const restart = forEach((client, id, options) => client.agents.restart(id, waitOf(options)));
export const signal = forEach((client, id, options) => client.agents.signal(id, options.signal ?? ""));
export const rm = forEach((client, id, options) => client.agents.remove(id, endingOf(options)), "removed");
export const status = forEach((client, id) => client.agents.get(id), "details");

function forEach(verb: Verb, shown?: "removed" | "details"): CommandHandler<VerbOptions> {
  return async (invocation: Invocation<VerbOptions>) => {
    const { operands, options, terminal } = invocation;
    const client = connect(invocation);
    const outcomes = await Promise.allSettled(operands.map((id) => verb(client, id, options)));
    const done = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    if (options.json) terminal.json({ items: done });
    else for (const agent of done) print(terminal, agent, shown);
    let exitCode: number = EXIT.done;
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") exitCode = printError(terminal, outcome.reason);
    }
    return exitCode;
  };
}

function print(terminal: Terminal, agent: Agent, shown: "removed" | "details" | undefined): void {
  const { agent_id, state, pid, reason, last_exit } = agent;
  if (shown === "details") {
    printDetails(terminal, agent);
  } else if (shown === "removed") {
    const exit = last_exit ? ` (${neutralise(describeExit(last_exit))})` : "";
    terminal.print(`${agent_id}  ${terminal.style("removed", "dim")}${exit}`);
  } else {
    const about = pid === undefined ? neutralise(reason ?? "") : `pid ${pid}`;
    terminal.print(`${agent_id}  ${paintState(terminal, state)}  ${about}`.trimEnd());
  }
}

function printDetails(terminal: Terminal, agent: Agent): void {
  const nowMs = Date.now();
  const ago = (time: string | undefined) => {
    const age = since(time, nowMs);
    return age === undefined ? undefined : `${time} (${age} ago)`;
  };
  const { last_exit: exit, usage, spent, resources, throttle } = agent;
  const safe = (text: string | undefined) => (text === undefined ? undefined : neutralise(text));
  const lines = facts(terminal, [
    ["state", paintState(terminal, agent.state)],
    ["reason", safe(agent.reason)],
    ["health", agent.health],
    ["desired", agent.desired],
    ["pid", agent.pid?.toString()],
    ["run", agent.run_id],
    ["template", `${agent.template_id} (revision ${neutralise(agent.template_revision)})`],
    ["parent", agent.parent_id],
    [
      "spawner",
      safe(agent.containment ? `${agent.spawner}, containment ${agent.containment}` : agent.spawner),
    ],
    ["restarts", String(agent.restarts)],
    ["created", ago(agent.created_at)],
    ["started", ago(agent.started_at)],
    ["ready", ago(agent.ready_at)],
    ["next start", agent.next_start_at],
    ["status", safe(agent.status)],
    ["progress", agent.progress === undefined ? undefined : `${Math.round(agent.progress * 100)}%`],
    ["usage", describeUsage(usage)],
    ["total usage", describeUsage(spent)],
    [
      "resources",
      resources &&
        `CPU ${formatPercent(resources.cpu_percent)} of one core (${formatDuration(resources.cpu_ms)} total), memory ${formatSize(resources.memory_bytes)}, processes ${resources.processes}`,
    ],
    ["limits", describeLimits(agent)],
    [
      "throttled",
      safe(
        throttle &&
          `to ${throttle.percent}% of one core (${throttle.by}) by ${throttle.actor}: ${throttle.reason}`,
      ),
    ],
    ["last exit", exit && safe(describeEnd(exit))],
    [
      "labels",
      safe(
        Object.entries(agent.labels)
          .map(([name, value]) => `${name}=${value}`)
          .join(", "),
      ) || undefined,
    ],
  ]);
  terminal.print(terminal.style(agent.agent_id, "bold"));
  for (const line of lines) terminal.print(`  ${line}`);
}

function describeUsage(usage: Usage | undefined): string | undefined {
  return usage && `${usage.input_tokens} tokens in, ${usage.output_tokens} out, $${usage.cost_usd}`;
}
