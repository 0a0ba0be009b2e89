import { formatDuration, formatSize } from "../../core/lib/units.js";
import type { Why } from "../../plugins/agent-manager-tool/client/client.js";
import { formatPercent, paintState } from "../agent-view.js";
import { hintForCommandLine } from "../cli-hints.js";
import { connect } from "../context.js";
import type { CommandHandler } from "../invocation.js";
import { neutralise, neutraliseLines } from "../neutralise.js";
import type { Terminal } from "../output.js";
import { wrap } from "../text-layout.js";

/** Explains an agent's state: what happened, what happens next, what to do. */
export const why: CommandHandler<{ json?: boolean }> = async (invocation) => {
  const { operands, options, terminal } = invocation;
  const [agentId = ""] = operands;
  const answer = await connect(invocation).agents.why(agentId);
  if (options.json) terminal.json(answer);
  else for (const line of linesOf(terminal, answer)) terminal.print(line);
  return undefined;
};

/** Longer lines are hard to read, even on a wider terminal. */
const WIDEST = 100;

/** Lays out the answer as text. */
export function linesOf(terminal: Terminal, answer: Why): string[] {
  const { style } = terminal;
  const width = Math.min(terminal.columns ?? WIDEST, WIDEST);
  const text = (words: string, hanging = 0) => wrap(neutralise(words), width, hanging);
  const named = (name: string, words: string) => {
    const [first = "", ...more] = text(`${name.padEnd(7)}${words}`, 7);
    return [style(name, "bold") + first.slice(name.length), ...more];
  };
  return [
    `${style(answer.agent_id, "bold")} ${stateInWords(terminal, answer.state)}`,
    "",
    ...text(answer.summary),
    "",
    ...named("Next:", answer.next),
    ...named("To do:", hintForCommandLine(answer.hint)),
    ...section(
      "Evidence:",
      answer.evidence.flatMap((it) => text(`  ${evidenceLine(it)}`, 4)),
    ),
    ...answer.curves.flatMap((curve) => section(curveTitle(curve, answer), curveLines(curve))),
    ...section(
      "Last runs:",
      answer.last_runs.flatMap((run) => runLines(run)),
    ),
    ...section("Last output:", outputLines(answer.output_tail ?? "")),
  ];

  function section(title: string, lines: readonly string[]): string[] {
    return lines.length === 0 ? [] : ["", ...text(title).map((line) => style(line, "dim")), ...lines];
  }

  function runLines({ ended_at, uptime, cause, actor, status }: Why["last_runs"][number]): string[] {
    const lived = uptime === undefined ? "" : ` after ${uptime}`;
    const by = actor === `agent:${answer.agent_id}` ? "" : `, by ${actor}`;
    return text(`  ${ended_at}${lived}  ${cause}${by}: ${status}`, 4);
  }

  function outputLines(tail: string): string[] {
    const trimmed = tail.trimEnd();
    if (trimmed === "") return [];
    return neutraliseLines(trimmed)
      .split("\n")
      .flatMap((line) => wrap(`  ${line}`, width, 4));
  }
}

/** `is running`, `has failed`, `is backing off`. */
function stateInWords(terminal: Terminal, state: string): string {
  const [verb, adjective] = WORDS_OF_STATES[state] ?? ["is", state];
  return `${verb} ${paintState(terminal, state, adjective)}`;
}

/** For the states of which "is" and the state itself are not English. */
const WORDS_OF_STATES: Readonly<Record<string, readonly [verb: string, adjective: string]>> = {
  backoff: ["is", "backing off"],
  exited: ["has", "exited"],
  failed: ["has", "failed"],
};

function evidenceLine({ at, kind, text }: Why["evidence"][number]): string {
  return `${at === undefined ? "" : `${at}  `}${kind}: ${text}`;
}

type Curve = Why["curves"][number];

function curveTitle({ run_id, since, until, samples }: Curve, { last_runs }: Why): string {
  const ended = last_runs.some((run) => run.run_id === run_id);
  const span = formatDuration(Date.parse(until) - Date.parse(since));
  const when = ended ? "Usage before the last exit" : "Recent usage";
  return `${when} (${samples === 1 ? "1 sample" : `${samples} samples over ${span}`}):`;
}

function curveLines({ memory, cpu }: Curve): string[] {
  const line = (name: string, sparkline: string, [min, max, last]: readonly [string, string, string]) =>
    `  ${name.padEnd(6)}  ${sparkline}  ${min} to ${max}, last ${last}`;
  return [
    line("memory", memory.sparkline, [
      formatSize(memory.min_bytes),
      formatSize(memory.max_bytes),
      formatSize(memory.last_bytes),
    ]),
    line("CPU", cpu.sparkline, [
      formatPercent(cpu.min_percent),
      formatPercent(cpu.max_percent),
      formatPercent(cpu.last_percent),
    ]),
  ];
}
