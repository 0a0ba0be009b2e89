import { join } from "node:path";
import Database from "libsql";
import type { Agent, DaemonEvent, StoredAgent } from "../../../core/index.js";
import type { History } from "./history.js";
import type { Belief, Model } from "./model.js";
import { byAgent, doubles, type Marked } from "./scan.js";

/** What there is, by three witnesses that know nothing of each other. */
export interface Seen {
  api: readonly Agent[];
  journal: ReadonlyMap<string, Agent>;
  processes: readonly Marked[];
}

const ENDED = ["stopped", "exited", "failed"];

/** Reads the database itself, beside the daemon that has it open. */
export function readJournal(home: string): { agents: Map<string, Agent>; events: DaemonEvent[] } {
  const database = new Database(join(home, "journal.db"), { readonly: true });
  try {
    const rows = (sql: string) => database.prepare(sql).all() as { id: number; record: string }[];
    const agents = rows("SELECT record FROM agents").map(
      ({ record }) => (JSON.parse(record) as StoredAgent).agent,
    );
    const events = rows("SELECT id, record FROM events ORDER BY id");
    return {
      agents: new Map(agents.map((agent) => [agent.agent_id, agent])),
      events: events.map(({ id, record }) => ({ id, ...JSON.parse(record) })),
    };
  } finally {
    database.close();
  }
}

/** Where what there is differs from what was acknowledged, and where the witnesses differ. */
export function compare({ api, journal, processes }: Seen, model: Model, history: History): string[] {
  const known = new Map(api.map((agent) => [agent.agent_id, agent]));
  const trees = byAgent(processes);
  const complaints = doubles(processes);
  for (const id of trees.keys()) {
    if (!known.has(id)) complaints.push(`${id} has processes and no record: ${show(processes, id)}`);
  }
  for (const id of journal.keys()) {
    if (!known.has(id)) complaints.push(`${id} is in the journal, and the API does not know it`);
  }
  for (const [id, belief] of model.agents) {
    const agent = known.get(id);
    if (belief.exists === true && !agent) complaints.push(`${id} was acknowledged, and is lost`);
    if (belief.exists === false && agent)
      complaints.push(`${id} was acknowledged to be deleted, and is ${agent.state}`);
    if (!agent) continue;
    const wrong = [
      ...againstBelief(agent, belief),
      ...againstJournal(agent, journal.get(id)),
      ...againstProcesses(agent, trees.get(id) ?? new Map(), model),
      ...againstHistory(agent, history),
    ];
    complaints.push(...wrong.map((text) => `${id}, ${agent.state}: ${text}`));
  }
  return complaints;
}

function againstBelief(agent: Agent, { desired, untouched }: Belief): string[] {
  const wrong: string[] = [];
  if (desired !== undefined && agent.desired !== desired)
    wrong.push(`acknowledged as wanted ${desired}, and it is wanted ${agent.desired}`);
  if (untouched && (agent.pid !== untouched.pid || agent.run_id !== untouched.run_id)) {
    const [was, is] = [untouched, agent].map(({ pid, run_id }) => `run ${run_id} with pid ${pid}`);
    wrong.push(`nothing was done to ${was}, and now it is ${is}`);
  }
  return wrong;
}

function againstJournal({ state, run_id, pid, restarts }: Agent, record: Agent | undefined): string[] {
  const live = [state, run_id, pid, restarts].join(" ");
  const durable = record && [record.state, record.run_id, record.pid, record.restarts].join(" ");
  return live === durable ? [] : [`the API says ${live}, the journal ${durable}`];
}

function againstProcesses(agent: Agent, runs: ReadonlyMap<string, Marked[]>, model: Model): string[] {
  const all = [...runs.values()].flat();
  if (agent.state !== "running")
    return all.length === 0 ? [] : [`it has processes: ${show(all, agent.agent_id)}`];
  const mine = runs.get(agent.run_id ?? "") ?? [];
  const [main] = mine.filter(({ role }) => role === "main");
  const shims = mine.filter(({ role }) => role === "shim").length;
  const wrong: string[] = [];
  if (main?.pid !== agent.pid) wrong.push(`the API says pid ${agent.pid}, /proc ${main?.pid}`);
  if (mine.length !== all.length) wrong.push(`processes of other runs: ${show(all, agent.agent_id)}`);
  if (shims !== (model.unwitnessed.has(agent.run_id ?? "") ? 0 : 1)) wrong.push(`it has ${shims} shims`);
  return wrong;
}

/** An agent is where its kind and what is wanted of it lead; what counts as a restart is an end of its own. */
function againstHistory({ agent_id, state, desired, restarts }: Agent, { lives }: History): string[] {
  const life = lives.get(agent_id);
  if (!life?.kind) return ["no event tells of its creation"];
  const { returns } = life.kind;
  const wrong: string[] = [];
  const rests = desired === "stopped" ? ENDED.includes(state) : !returns && state === "exited";
  if (state !== "running" && !rests) wrong.push(`it is wanted ${desired}`);
  if (state === "running" && desired === "stopped") wrong.push("it is wanted stopped");
  const counted = returns ? life.ownEnds : 0;
  if (restarts !== counted)
    wrong.push(`${restarts} restarts are counted, and it ended ${counted} times by itself`);
  return wrong;
}

function show(processes: readonly Marked[], agentId: string): string {
  return processes
    .filter((it) => it.agentId === agentId)
    .map(({ pid, ppid, runId, role, state }) => `${role} ${pid} (parent ${ppid}, ${state}) of ${runId}`)
    .join(", ");
}
