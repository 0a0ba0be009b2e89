import { type DaemonEvent, type EventOf, type EventType, rfc3339 } from "../../../core/index.js";
import type { WhyFacts } from "./facts.js";

/** What will be done to the live run unless something changes. */
export interface UpcomingAction {
  /** `will be interrupted`. */
  readonly action: string;
  readonly at: string;
  /** The condition or consequence: `unless it reports progress first`. */
  readonly condition: string;
  /** What to do meanwhile. */
  readonly hint: string;
}

/** Finds an announced stop of the live run, or the next step towards one. Pure. */
export function upcomingAction(facts: WhyFacts): UpcomingAction | undefined {
  if (facts.agent.state !== "running") return undefined;
  const upcoming = announcedStop(facts) ?? nextProgressStep(facts);
  return upcoming && Date.parse(upcoming.at) > facts.nowMs ? upcoming : undefined;
}

function announcedStop(facts: WhyFacts): UpcomingAction | undefined {
  const { data } = newest(facts, "agent.limit", ({ data }) => data.action === "stop") ?? {};
  if (data?.due_at === undefined) return undefined;
  const start = `POST /agents/${facts.agent.agent_id}/start`;
  return {
    action: "will be stopped",
    at: data.due_at,
    condition: `for exceeding ${data.limit}; then nothing until it is started`,
    hint: `wait until it is stopped; to let it continue, raise ${data.limit} in its template, then ${start}`,
  };
}

/** What follows each step. */
const NEXT_STEPS: Readonly<Record<string, string>> = {
  nudge: "will be interrupted",
  interrupt: "its run will be ended",
};

function nextProgressStep(facts: WhyFacts): UpcomingAction | undefined {
  const { at, data } = newest(facts, "agent.progress") ?? {};
  const action = NEXT_STEPS[data?.step ?? ""];
  const graceMs = facts.template?.progress?.graceMs;
  if (at === undefined || action === undefined || graceMs === undefined) return undefined;
  return {
    action,
    at: rfc3339(Date.parse(at) + graceMs),
    condition: "unless it reports progress first",
    hint: `wait, or check its logs: GET /agents/${facts.agent.agent_id}/logs`,
  };
}

function newest<T extends EventType>(
  { agent, events }: WhyFacts,
  type: T,
  matches: (event: EventOf<T>) => boolean = () => true,
): EventOf<T> | undefined {
  const isIt = (it: DaemonEvent) =>
    it.type === type && it.run_id === agent.run_id && matches(it as unknown as EventOf<T>);
  return events.findLast(isIt) as unknown as EventOf<T> | undefined;
}
