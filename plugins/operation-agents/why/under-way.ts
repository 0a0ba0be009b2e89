import { type DaemonEvent, type EventOf, type EventType, rfc3339 } from "../../../core/index.js";
import type { WhyFacts } from "./facts.js";

/** What is done about the run that lives unless something changes. */
export interface UnderWay {
  /** `it is interrupted`. */
  readonly deed: string;
  readonly at: string;
  /** What else is to be said of that. */
  readonly rest: string;
  /** What to do meanwhile. */
  readonly hint: string;
}

/** An end that has been announced to the run that lives, or a further step towards one. Pure. */
export function underWay(facts: WhyFacts): UnderWay | undefined {
  if (facts.agent.state !== "running") return undefined;
  const coming = announcedStop(facts) ?? nextStep(facts);
  return coming && Date.parse(coming.at) > facts.nowMs ? coming : undefined;
}

function announcedStop(facts: WhyFacts): UnderWay | undefined {
  const { data } = newest(facts, "agent.limit", ({ data }) => data.action === "stop") ?? {};
  if (data?.due_at === undefined) return undefined;
  const start = `POST /agents/${facts.agent.agent_id}/start`;
  return {
    deed: "it is stopped",
    at: data.due_at,
    rest: `for its ${data.limit}; then nothing until somebody starts it`,
    hint: `wait until it is stopped; to have it go on then, raise ${data.limit} in its template, then ${start}`,
  };
}

/** What follows on each step. */
const NEXT_STEPS: Readonly<Record<string, string>> = {
  nudge: "it is interrupted",
  interrupt: "its run is ended",
};

function nextStep(facts: WhyFacts): UnderWay | undefined {
  const { at, data } = newest(facts, "agent.progress") ?? {};
  const deed = NEXT_STEPS[data?.step ?? ""];
  const graceMs = facts.template?.progress?.graceMs;
  if (at === undefined || deed === undefined || graceMs === undefined) return undefined;
  return {
    deed,
    at: rfc3339(Date.parse(at) + graceMs),
    rest: "unless it gets on before that",
    hint: `wait, and look at what it prints: GET /agents/${facts.agent.agent_id}/logs`,
  };
}

function newest<T extends EventType>(
  { agent, events }: WhyFacts,
  type: T,
  counts: (event: EventOf<T>) => boolean = () => true,
): EventOf<T> | undefined {
  const isIt = (it: DaemonEvent) =>
    it.type === type && it.run_id === agent.run_id && counts(it as unknown as EventOf<T>);
  return events.findLast(isIt) as unknown as EventOf<T> | undefined;
}
