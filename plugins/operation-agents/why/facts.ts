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
import { eventsOfRuns } from "./run-events.js";

/** All that an answer about an agent is made of. */
export interface WhyFacts {
  readonly agent: Agent;
  readonly nowMs: number;
  /** The newest finished runs, newest first. */
  readonly runs: readonly RunRecord[];
  /** Of the current run and of the last finished one, oldest first, less heartbeats. */
  readonly events: readonly DaemonEvent[];
  readonly template: Template | undefined;
  /** Who asked for the end that is under way. */
  readonly ending: StoredAgent["ending"];
  readonly held: StoredAgent["held"];
  /** Its record goes when it is over. */
  readonly deleting: boolean;
  readonly survivors: AgentDetails["survivors"];
  /** What its template requires and is not there. */
  readonly needs: readonly Need[];
  /** How much of what its restart policy allows is used up. */
  readonly restartsUsed: string | undefined;
  /** The agent that started it, where that is over and the asking one may see it. */
  readonly parent: Agent | undefined;
  /** The plugin that hosts it, for a service. */
  readonly host: string | undefined;
  /** What could not be found out. */
  readonly unread: string | undefined;
}

/** Something required that is not there. */
export interface Need {
  /** As templates write it. */
  readonly name: string;
  /** `does not exist`, `is failed`, `is not there: …`. */
  readonly problem: string;
  /** For an agent: its id. */
  readonly agentId?: string;
  /** It will not come about by itself. */
  readonly hopeless: boolean;
}

const RUNS_SHOWN = 5;

/** Also where the journal cannot be read: with what the daemon knows without it. */
export async function gatherFacts(ctx: PluginContext, agent: Agent, principal: Principal): Promise<WhyFacts> {
  const { agent_id, parent_id } = agent;
  const details = ctx.agents.details(agent_id);
  const stored = details?.stored;
  let unread: string | undefined;
  const readable = <T>(reading: Promise<T>, instead: T): Promise<T> =>
    reading.catch((err: unknown) => {
      ctx.log.warn({ agent_id, err }, "what the journal tells of an agent could not be read");
      unread = "the journal cannot be read now: earlier runs and events are missing here";
      return instead;
    });
  const runs = await readable(ctx.journal.runs(agent_id, RUNS_SHOWN), lastRunOf(agent));
  const events = await readable(eventsOfRuns(ctx.journal, agent_id, runsInQuestion(agent, runs)), []);
  const parent = parent_id === undefined ? undefined : ctx.agents.get(parent_id);
  const isOver = parent !== undefined && parent.pid === undefined;
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
    parent: isOver && isVisible(parent, principal, ctx.agents) ? parent : undefined,
    host: isService(agent) ? stored?.template.origin : undefined,
    unread,
  };
}

/** The runs that explain how an agent is: the one that lives, and the last that ended. */
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
  if (!other) return [{ name, problem: "does not exist", agentId, hopeless: true }];
  if (other.state === "running") return [];
  const hopeless = ["stopped", "exited", "failed"].includes(other.state);
  // Whoever may not see it is told what its own reason says already, and no more.
  const because = isVisible(other, principal, ctx.agents) && other.reason ? `: ${other.reason}` : "";
  return [{ name, problem: `is ${other.state}${because}`, agentId, hopeless }];
}

function endpointNeed(ctx: PluginContext, name: string): Need[] {
  const endpoint = ctx.services.endpoints().find((it) => it.name === name);
  if (!endpoint) return [{ name, problem: "is provided by no plugin", hopeless: true }];
  const problem = endpoint.health();
  return problem === undefined ? [] : [{ name, problem: `is not there: ${problem}`, hopeless: false }];
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
      "the restart policy could not tell what is used up",
    );
    return undefined;
  }
}
