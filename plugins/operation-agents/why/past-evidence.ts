import { type DaemonEvent, type EventOf, type Exit, formatDuration } from "../../../core/index.js";
import type { Evidence } from "./evidence.js";
import type { WhyFacts } from "./facts.js";
import { actorInWords } from "./in-words.js";

/** The number of events that are listed; `agents.events` has the older ones. */
const MAX_EVENTS = 20;

/** Lists what happened to the live run and to the last one that ended, oldest first. Pure. */
export function pastEvidence(facts: WhyFacts): Evidence[] {
  const events = facts.events.flatMap((event) => eventEvidence(event, facts)).slice(-MAX_EVENTS);
  return [...events, ...exitEvidence(facts)]
    .sort((a, b) => timeOf(a) - timeOf(b))
    .map((evidence) => markPrevious(evidence, facts));
}

const timeOf = ({ at = "" }: Evidence) => Date.parse(at);

/** Marks what happened to the previous run, so that it is not taken for a current fact. */
function markPrevious(evidence: Evidence, { agent }: WhyFacts): Evidence {
  const isPrevious = agent.pid !== undefined && evidence.run_id !== agent.run_id;
  return isPrevious ? { ...evidence, text: `in the previous run: ${evidence.text}` } : evidence;
}

function eventEvidence(event: DaemonEvent, facts: WhyFacts): Evidence[] {
  const kindAndText = describeEvent(event, facts);
  if (!kindAndText) return [];
  const { at, run_id, data } = event;
  const by = "actor" in data && typeof data.actor === "string" ? { actor: data.actor } : {};
  return [{ ...by, ...kindAndText, at, run_id }];
}

const LIMIT_ACTIONS: Readonly<Record<string, string>> = {
  warn: "warning only",
  throttle: "CPU throttled",
  restart: "run ended, which counts as a failure",
};

const PROGRESS_STEPS: Readonly<Record<string, string>> = {
  nudge: "nudged by a signal",
  interrupt: "interrupted by SIGINT",
  restart: "run ended",
  resumed: "no further steps",
};

function describeEvent(
  event: DaemonEvent,
  facts: WhyFacts,
): Pick<Evidence, "kind" | "text" | "actor"> | undefined {
  const { reason = "", actor: who = "daemon" } = event.data as { reason?: string; actor?: string };
  const actor = actorInWords(who);
  switch (event.type) {
    case "agent.limit": {
      const { action } = event.data;
      const done = action === "stop" ? stopInWords(event, facts) : LIMIT_ACTIONS[action];
      return { kind: "limit", text: done ? `${actor}: ${reason}; ${done}` : reason };
    }
    case "agent.throttled": {
      const { percent, by } = event.data;
      const text =
        percent === undefined
          ? `${actor} ended the throttling: ${reason}`
          : `${actor} throttled its CPU to ${percent}% of one core (${by}): ${reason}`;
      return { kind: "throttle", text };
    }
    case "agent.progress": {
      const { step } = event.data;
      return { kind: "progress", text: `${reason}: ${PROGRESS_STEPS[step] ?? step}` };
    }
    case "agent.health": {
      const { from, to } = event.data;
      return { kind: "health", text: `changed from ${from} to ${to}${reason === "" ? "" : `: ${reason}`}` };
    }
    case "agent.state":
      return event.data.to === "stopping" ? stopEvidence(event, reason, facts) : undefined;
    default:
      return undefined;
  }
}

/** Words a stop by a limit. One that was announced with a grace period may be pending, or may not have happened. */
function stopInWords(
  { data, run_id: runId }: EventOf<"agent.limit">,
  { agent, runs, ending }: WhyFacts,
): string {
  const isLive = agent.run_id === runId && agent.pid !== undefined;
  const end = isLive ? ending : runs.find((run) => run.run_id === runId)?.exit;
  if (data.due_at === undefined || end?.actor === data.actor) return "agent stopped";
  return isLive && !end ? "the agent will be stopped" : "the agent was to be stopped";
}

function stopEvidence(
  { at, run_id }: DaemonEvent,
  reason: string,
  { runs, ending, template }: WhyFacts,
): Pick<Evidence, "kind" | "text" | "actor"> {
  const exit = runs.find((run) => run.run_id === run_id)?.exit;
  const actor = exit?.actor ?? ending?.actor ?? "daemon";
  const tookMs = exit ? Date.parse(exit.ended_at) - Date.parse(at) : Number.NaN;
  const took = Number.isNaN(tookMs) ? "" : `; it exited after ${formatDuration(Math.max(0, tookMs))}`;
  const { signal, graceMs = 0 } = template?.stop ?? {};
  const how = signal ? `sent ${signal} (${formatDuration(graceMs)} grace)` : "ended it";
  return { kind: "ending", text: `${actorInWords(actor)} ${how}: ${reason}${took}`, actor };
}

/** What the exit of the last run tells by itself. */
function exitEvidence({ agent, runs }: WhyFacts): Evidence[] {
  const exit = runs[0]?.exit ?? agent.last_exit;
  if (!exit) return [];
  const place = { at: exit.ended_at, actor: exit.actor, run_id: exit.run_id };
  if (exit.cause === "oom") return [{ kind: "oom", text: exit.reason, ...place }];
  if (exit.cause === "start_timeout") return [{ kind: "readiness", text: exit.reason, ...place }];
  const signal = signalInWords(exit);
  return signal === undefined ? [] : [{ kind: "signal", text: signal, ...place }];
}

const OF_THE_PROGRAM = ["SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE", "SIGPIPE", "SIGXCPU", "SIGXFSZ"];

/** Says what sent a signal, as far as that is known. */
function signalInWords(exit: Exit): string | undefined {
  if (exit.kind !== "signaled") return undefined;
  const { signal, cause, actor } = exit;
  if (cause !== "self") {
    return signal === "SIGKILL"
      ? "SIGKILL was sent after the grace period, or without one"
      : `${signal} was sent on behalf of ${actorInWords(actor)}`;
  }
  if (OF_THE_PROGRAM.includes(signal)) return `${signal} was caused by the program itself`;
  const kernel = signal === "SIGKILL" ? ", or the kernel because the machine ran out of memory" : "";
  return `the daemon did not send ${signal}: another program or a person did${kernel}`;
}
