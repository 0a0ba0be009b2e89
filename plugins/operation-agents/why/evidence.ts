import { z } from "zod";
import {
  type DaemonEvent,
  type EventOf,
  type Exit,
  formatDuration,
  formatSize,
  LIMIT_NAMES,
  type Limit,
  type LimitName,
} from "../../../core/index.js";
import { actorInWords } from "./exit-words.js";
import type { WhyFacts } from "./facts.js";

const KINDS = [
  "requirement",
  "hold",
  "deferral",
  "ending",
  "survivors",
  "limit",
  "throttle",
  "progress",
  "health",
  "readiness",
  "liveness",
  "oom",
  "signal",
  "parent",
  "restarts",
  "journal",
] as const;

/** One thing that is known, and that the answer rests on. */
export const evidenceSchema = z
  .object({
    kind: z.enum(KINDS),
    text: z.string().meta({ description: "In words, with the figures that were seen." }),
    at: z.string().optional().meta({ description: "Absent: now." }),
    run_id: z.string().optional(),
    actor: z
      .string()
      .optional()
      .meta({ description: "Whose doing it is: operator, agent:ID, plugin:NAME, daemon." }),
  })
  .meta({ id: "Evidence" });
export type Evidence = z.output<typeof evidenceSchema>;

/** Of the events those that happened last; older ones stand in `agents.events`. */
const EVENTS_TOLD = 20;

/** What there is to go by: first what happened, oldest first, then what is the case now. Pure. */
export function evidenceOf(facts: WhyFacts): Evidence[] {
  const events = facts.events.flatMap((event) => eventEvidence(event, facts)).slice(-EVENTS_TOLD);
  const happened = [...events, ...endEvidence(facts)].sort((a, b) => timeOf(a) - timeOf(b));
  return [
    ...happened.map((it) => markFormer(it, facts)),
    ...waitingEvidence(facts),
    ...survivorEvidence(facts),
    ...probeEvidence(facts),
    ...limitEvidence(facts),
    ...(facts.restartsUsed === undefined
      ? []
      : [{ kind: "restarts" as const, text: `of its restarts are used up: ${facts.restartsUsed}` }]),
    ...parentEvidence(facts),
    ...(facts.unread === undefined ? [] : [{ kind: "journal" as const, text: facts.unread }]),
  ];
}

const timeOf = ({ at = "" }: Evidence) => Date.parse(at);

/** What happened to the run before the one that lives is not taken for something that is the case. */
function markFormer(evidence: Evidence, { agent }: WhyFacts): Evidence {
  const isFormer = agent.pid !== undefined && evidence.run_id !== agent.run_id;
  return isFormer ? { ...evidence, text: `in the run before: ${evidence.text}` } : evidence;
}

function eventEvidence(event: DaemonEvent, facts: WhyFacts): Evidence[] {
  const kindAndText = describeEvent(event, facts);
  if (!kindAndText) return [];
  const { at, run_id, data } = event;
  const by = "actor" in data && typeof data.actor === "string" ? { actor: data.actor } : {};
  return [{ ...by, ...kindAndText, at, run_id }];
}

const LIMIT_DEEDS: Readonly<Record<string, string>> = {
  warn: "which is told and no more",
  throttle: "and slowed its CPU down",
  restart: "and ended the run, which counts as a failure",
};

function describeEvent(event: DaemonEvent, facts: WhyFacts) {
  const { at, run_id } = event;
  const { reason = "", actor: who = "daemon" } = event.data as { reason?: string; actor?: string };
  const actor = actorInWords(who);
  switch (event.type) {
    case "agent.limit": {
      const { action } = event.data;
      const deed = action === "stop" ? stopDeed(event, facts) : LIMIT_DEEDS[action];
      return { kind: "limit", text: deed ? `${actor} saw: ${reason}, ${deed}` : reason } as const;
    }
    case "agent.throttled": {
      const text =
        event.data.percent === undefined
          ? `${actor} gave it back its CPU: ${reason}`
          : `${actor} slowed its CPU down to ${event.data.percent}% of a core (${event.data.by}): ${reason}`;
      return { kind: "throttle", text } as const;
    }
    case "agent.progress":
      return {
        kind: "progress",
        text: `${reason}: ${PROGRESS_DEEDS[event.data.step] ?? event.data.step}`,
      } as const;
    case "agent.health":
      return {
        kind: "health",
        text: `it was ${event.data.from} and is ${event.data.to}${reason === "" ? "" : `: ${reason}`}`,
      } as const;
    case "agent.state":
      return event.data.to === "stopping" ? toldToEnd({ at, run_id, reason }, facts) : undefined;
    default:
      return undefined;
  }
}

/** What is announced with a grace may still be to come, or may not have come to pass. */
function stopDeed({ data, run_id: runId }: EventOf<"agent.limit">, { agent, runs, ending }: WhyFacts) {
  const lives = agent.run_id === runId && agent.pid !== undefined;
  const ender = lives ? ending : runs.find((run) => run.run_id === runId)?.exit;
  if (data.due_at === undefined || ender?.actor === data.actor) return "and had it stopped";
  return lives && !ender ? "and will have it stopped" : "and was to have it stopped";
}

function toldToEnd(
  { at, run_id, reason }: { at: string; run_id: string | undefined; reason: string },
  { runs, ending, template }: WhyFacts,
) {
  const exit = runs.find((run) => run.run_id === run_id)?.exit;
  const actor = exit?.actor ?? ending?.actor ?? "daemon";
  const tookMs = exit ? Date.parse(exit.ended_at) - Date.parse(at) : Number.NaN;
  const took = Number.isNaN(tookMs) ? "" : `; it was gone ${formatDuration(Math.max(0, tookMs))} later`;
  const { signal, graceMs } = template?.stop ?? {};
  const how = signal ? ` (${signal}; its grace is ${formatDuration(graceMs ?? 0)})` : "";
  return {
    kind: "ending",
    text: `${actorInWords(actor)} had it told to end${how}: ${reason}${took}`,
    actor,
  } as const;
}

const PROGRESS_DEEDS: Readonly<Record<string, string>> = {
  nudge: "it was nudged by a signal",
  interrupt: "it was interrupted by SIGINT",
  restart: "its run is ended",
  resumed: "nothing more is done",
};

/** What the end of the last run says by itself. */
function endEvidence({ agent, runs }: WhyFacts): Evidence[] {
  const exit = runs[0]?.exit ?? agent.last_exit;
  if (!exit) return [];
  const place = { at: exit.ended_at, actor: exit.actor, run_id: exit.run_id };
  if (exit.cause === "oom") return [{ kind: "oom", text: exit.reason, ...place }];
  if (exit.cause === "start_timeout") return [{ kind: "readiness", text: exit.reason, ...place }];
  const signal = signalEvidence(exit);
  return signal === undefined ? [] : [{ kind: "signal", text: signal, ...place }];
}

/** Who sent it, as far as it can be told. */
function signalEvidence(exit: Exit): string | undefined {
  if (exit.kind !== "signaled") return undefined;
  const { signal, cause } = exit;
  if (cause !== "self") {
    return signal === "SIGKILL"
      ? "SIGKILL came after it was told to end: its grace was over, or it was given none"
      : `${signal} came after it was told to end, on behalf of ${actorInWords(exit.actor)}`;
  }
  if (["SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE", "SIGPIPE", "SIGXCPU", "SIGXFSZ"].includes(signal))
    return `${signal} came of what the program did itself`;
  const kernel =
    signal === "SIGKILL" ? ", or the kernel, which kills so when the whole machine lacks memory" : "";
  return `the daemon did not send ${signal}: another program or a person did${kernel}`;
}

function waitingEvidence({ agent, held, needs }: WhyFacts): Evidence[] {
  if (agent.state !== "pending") return [];
  const missing = needs.map(
    ({ name, problem }): Evidence => ({ kind: "requirement", text: `${name} ${problem}` }),
  );
  if (held) return [{ kind: "hold", text: held.reason, actor: held.by }, ...missing];
  if (missing.length > 0 || agent.next_start_at === undefined) return missing;
  return [{ kind: "deferral", text: agent.reason ?? "its start was put off" }];
}

function survivorEvidence({ survivors }: WhyFacts): Evidence[] {
  if (survivors.length === 0) return [];
  const names = survivors.map(({ pid, name }) => `${name} (pid ${pid})`).join(", ");
  return [{ kind: "survivors", text: `could not be ended: ${names}` }];
}

/** What its probes say now. What they said of former runs stands in how those ended. */
function probeEvidence({ agent, template }: WhyFacts): Evidence[] {
  if (agent.state === "starting" && template?.readiness) {
    const { type, timeoutMs } = template.readiness;
    const saw = agent.reason === undefined ? "has said nothing yet" : `saw last: ${agent.reason}`;
    return [{ kind: "readiness", text: `probe ${type}, of ${formatDuration(timeoutMs)}, ${saw}` }];
  }
  if (agent.state !== "running" || !template?.liveness) return [];
  const says = agent.health === "unknown" ? "has said nothing yet" : `says ${agent.health}`;
  return [{ kind: "liveness", text: `probe ${template.liveness.type} ${says}` }];
}

const seconds = (value: number) => formatDuration(value * 1_000);
const VALUES: Readonly<Record<LimitName, (value: number) => string>> = {
  memory_max: formatSize,
  cpu_max: (percent) => `${percent}% of a core`,
  pids_max: String,
  open_files_max: String,
  run_time_max: seconds,
  idle_max: seconds,
};

/** Its limits, who holds each, and what is used of it now. */
function limitEvidence({ agent }: WhyFacts): Evidence[] {
  return LIMIT_NAMES.flatMap((name): Evidence[] => {
    const limit = agent.limits?.[name];
    return limit ? [{ kind: "limit", text: limitInWords(name, limit, agent.resources) }] : [];
  });
}

function limitInWords(
  name: LimitName,
  { value, held_by, on_exceed }: Limit,
  uses: WhyFacts["agent"]["resources"],
) {
  const holder = held_by === "kernel" ? "the operating system" : "a policy that looks at intervals";
  const then = on_exceed === undefined ? "" : `, then ${on_exceed}`;
  const measured: Partial<Record<LimitName, string>> = uses
    ? {
        memory_max: formatSize(uses.memory_bytes),
        cpu_max: `${Math.round(uses.cpu_percent)}%`,
        pids_max: String(uses.processes),
      }
    : {};
  const now = measured[name] === undefined ? "" : `; ${measured[name]} now`;
  return `${name} ${VALUES[name](value)}, held by ${holder}${then}${now}`;
}

function parentEvidence({ parent, agent }: WhyFacts): Evidence[] {
  if (!parent || agent.last_exit?.cause !== "parent_exit") return [];
  const because = parent.reason === undefined ? "" : `: ${parent.reason}`;
  return [{ kind: "parent", text: `agent ${parent.agent_id} started it, and is ${parent.state}${because}` }];
}
