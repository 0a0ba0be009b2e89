import {
  type Agent,
  type AgentDetails,
  type DaemonEvent,
  ID_PATTERN,
  isService,
  type PluginContext,
  type Principal,
  type RunRecord,
  restartPolicy,
  type StoredAgent,
  type Template,
} from "../../../core/index.js";
import { isVisible } from "../lookup.js";
import { stateInWords } from "./in-words.js";
import { eventsOfRuns } from "./run-events.js";

/** The facts that an answer about an agent is made of. */
export interface WhyFacts {
  readonly agent: Agent;
  readonly nowMs: number;
  /** The last runs that have ended, newest first. */
  readonly runs: readonly RunRecord[];
  /** Events of the live run and of the last one that ended, oldest first, without heartbeats. */
  readonly events: readonly DaemonEvent[];
  readonly template: Template | undefined;
  /** The cause and actor of the stop in progress. */
  readonly ending: StoredAgent["ending"];
  readonly held: StoredAgent["held"];
  /** Its record will be deleted when it has ended. */
  readonly deleting: boolean;
  readonly survivors: AgentDetails["survivors"];
  /** What its template requires and is not available. */
  readonly needs: readonly Need[];
  /** How much of what its restart policy allows was used. */
  readonly restartsUsed: string | undefined;
  /** Its parent, if that has ended and is visible to the requester. */
  readonly parent: Agent | undefined;
  /** For a service: the plugin that hosts it. */
  readonly host: string | undefined;
  /** What could not be read. */
  readonly unread: string | undefined;
}

/** A requirement that is not met. */
export interface Need {
  /** As written in the template. */
  readonly name: string;
  /** `does not exist`, `has failed`, `is unavailable: …`. */
  readonly problem: string;
  /** For an agent: its ID. */
  readonly agentId?: string;
  /** It will not be met without intervention. */
  readonly permanent: boolean;
}

const RUNS_SHOWN = 5;

/** Gathers the facts; without the journal if that cannot be read. */
export async function gatherFacts(ctx: PluginContext, agent: Agent, principal: Principal): Promise<WhyFacts> {
  const { agent_id, parent_id } = agent;
  const details = ctx.agents.details(agent_id);
  const stored = details?.stored;
  let unread: string | undefined;
  const readable = <T>(reading: Promise<T>, instead: T): Promise<T> =>
    reading.catch((err: unknown) => {
      ctx.log.warn({ agent_id, err }, "cannot read an agent's history from the journal");
      unread = "the journal cannot be read: earlier runs and events are missing";
      return instead;
    });
  const runs = await readable(ctx.journal.runs(agent_id, RUNS_SHOWN), lastRunOf(agent));
  const events = await readable(eventsOfRuns(ctx.journal, agent_id, runsInQuestion(agent, runs)), []);
  const parent = parent_id === undefined ? undefined : ctx.agents.get(parent_id);
  const parentEnded = parent !== undefined && parent.pid === undefined;
  return {
    agent,
    nowMs: ctx.clock.now(),
    runs,
    events,
    template: stored?.template.template,
    ending: stored?.ending,
    held: stored?.held,
    deleting: stored?.deleting ?? false,
    survivors: details?.survivors ?? [],
    needs: agent.state === "pending" ? needsOf(ctx, stored, principal) : [],
    restartsUsed: restartsUsed(ctx, stored),
    parent: parentEnded && isVisible(parent, principal, ctx.agents) ? parent : undefined,
    host: isService(agent) ? stored?.template.origin : undefined,
    unread,
  };
}

/** Answers the runs that explain the state of an agent: the live one, and the last one that ended. */
export function runsInQuestion(
  { pid, run_id, last_exit }: Agent,
  runs: readonly Pick<RunRecord, "run_id">[],
): string[] {
  const ended = runs[0]?.run_id ?? last_exit?.run_id;
  const found = [pid === undefined ? undefined : run_id, ended].flatMap((id) => id ?? []);
  return [...new Set(found)];
}

function lastRunOf({ agent_id, last_exit: exit }: Agent): RunRecord[] {
  return exit ? [{ agent_id, run_id: exit.run_id ?? "", exit }] : [];
}

function needsOf(ctx: PluginContext, stored: StoredAgent | undefined, principal: Principal): Need[] {
  return (stored?.template.template.requires ?? []).flatMap((name): Need[] => {
    const id = name.startsWith("agent:") ? name.slice("agent:".length) : undefined;
    return id === undefined ? endpointNeed(ctx, name) : agentNeed(ctx, name, id, principal);
  });
}

function agentNeed(ctx: PluginContext, name: string, agentId: string, principal: Principal): Need[] {
  const other = ID_PATTERN.test(agentId) ? ctx.agents.get(agentId) : undefined;
  if (!other) return [{ name, problem: "does not exist", agentId, permanent: true }];
  if (other.state === "running") return [];
  const permanent = ["stopped", "exited", "failed"].includes(other.state);
  // A requester that may not see the agent learns no more than its own reason says.
  const because = isVisible(other, principal, ctx.agents) && other.reason ? `: ${other.reason}` : "";
  return [{ name, problem: `${stateInWords(other.state)}${because}`, agentId, permanent }];
}

function endpointNeed(ctx: PluginContext, name: string): Need[] {
  const endpoint = ctx.services.endpoints().find((it) => it.name === name);
  if (!endpoint) return [{ name, problem: "is not provided by any plugin", permanent: true }];
  const problem = endpoint.health();
  return problem === undefined ? [] : [{ name, problem: `is unavailable: ${problem}`, permanent: false }];
}

function restartsUsed(ctx: PluginContext, stored: StoredAgent | undefined): string | undefined {
  if (!stored) return undefined;
  const { restart_memory: memory, template } = stored;
  try {
    const rules = template.template.restart;
    return ctx.use(restartPolicy).used?.({ rules, memory, nowMs: ctx.clock.now() });
  } catch (err) {
    ctx.log.warn(
      { agent_id: stored.agent.agent_id, err },
      "the restart policy failed to report the restarts used",
    );
    return undefined;
  }
}
