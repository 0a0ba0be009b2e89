import { join } from "node:path";
import Database from "libsql";
import type { Agent, DaemonEvent, StoredAgent } from "../../../core/index.js";
import type { History } from "./history.js";
import type { Belief, Model } from "./model.js";
import { byAgent, type Marked } from "./scan.js";

/** What there is, by three witnesses that know nothing of each other. */
export interface Seen {
  api: readonly Agent[];
  journal: ReadonlyMap<string, StoredAgent>;
  processes: readonly Marked[];
}

const ENDED = ["stopped", "exited", "failed"];

/** Reads the database itself, beside the daemon that has it open. */
function read<T>(home: string, sql: string, after: number[], parse: (id: number, record: string) => T): T[] {
  const database = new Database(join(home, "journal.db"), { readonly: true });
  try {
    const rows = database.prepare(sql).all(...after) as { id: number; record: string }[];
    return rows.map(({ id, record }) => parse(id, record));
  } finally {
    database.close();
  }
}

export function journaledAgents(home: string): Map<string, StoredAgent> {
  const sql = "SELECT seq AS id, record FROM agents";
  const all = read(home, sql, [], (_, record) => JSON.parse(record) as StoredAgent);
  return new Map(all.map((stored) => [stored.agent.agent_id, stored]));
}

export function journaledEvents(home: string, after: number): DaemonEvent[] {
  const sql = "SELECT id, record FROM events WHERE id > ? ORDER BY id";
  return read(home, sql, [after], (id, record) => ({ id, ...JSON.parse(record) }) as DaemonEvent);
}

/** Where what there is differs from what was acknowledged, and where the witnesses differ. */
export function compare({ api, journal, processes }: Seen, model: Model, history: History): string[] {
  const known = new Map(api.map((agent) => [agent.agent_id, agent]));
  const trees = byAgent(processes);
  const ids = new Set([...model.agents.keys(), ...known.keys(), ...journal.keys(), ...trees.keys()]);
  return [...ids].flatMap((id) => {
    const agent = known.get(id);
    const runs = trees.get(id) ?? new Map<string, Marked[]>();
    const belief = model.agents.get(id);
    const complaints = agent
      ? [
          ...againstBelief(agent, belief),
          ...againstJournal(agent, journal.get(id)),
          ...againstProcesses(agent, runs, model),
          ...againstHistory(agent, history),
        ]
      : [
          ...(belief?.exists ? ["it was acknowledged, and is lost"] : []),
          ...(journal.has(id) ? ["it is in the journal, and the API does not know it"] : []),
          ...(runs.size > 0 ? [`it has no record, and these: ${show(runs)}`] : []),
        ];
    return complaints.map((text) => `${id}, ${agent?.state ?? "gone"}: ${text}`);
  });
}

function againstBelief(agent: Agent, belief: Belief | undefined): string[] {
  const { exists, desired, untouched } = belief ?? { exists: false };
  const wrong: string[] = [];
  if (exists === false) wrong.push("it was acknowledged to be deleted, or never made");
  if (desired !== undefined && agent.desired !== desired)
    wrong.push(`acknowledged as wanted ${desired}, and it is wanted ${agent.desired}`);
  if (untouched && (agent.pid !== untouched.pid || agent.run_id !== untouched.run_id)) {
    const [was, is] = [untouched, agent].map(({ pid, run_id }) => `run ${run_id} with pid ${pid}`);
    wrong.push(`nothing was done to ${was}, and now it is ${is}`);
  }
  return wrong;
}

function againstJournal(agent: Agent, stored: StoredAgent | undefined): string[] {
  const words = ({ state, run_id, pid, restarts }: Agent) => [state, run_id, pid, restarts].join(" ");
  const durable = stored && words(stored.agent);
  if (words(agent) !== durable) return [`the API says ${words(agent)}, the journal ${durable}`];
  return stored?.deleting ? ["it is being deleted"] : [];
}

function againstProcesses(agent: Agent, runs: ReadonlyMap<string, Marked[]>, model: Model): string[] {
  const all = [...runs.values()].flat();
  if (agent.state !== "running") return all.length === 0 ? [] : [`it has processes: ${show(runs)}`];
  const mine = runs.get(agent.run_id ?? "") ?? [];
  const [main] = mine.filter(({ role }) => role === "main");
  const shims = mine.filter(({ role }) => role === "shim").length;
  const wrong: string[] = [];
  if (main?.pid !== agent.pid) wrong.push(`the API says pid ${agent.pid}, /proc ${main?.pid}`);
  if (mine.length !== all.length) wrong.push(`processes of other runs: ${show(runs)}`);
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

function show(runs: ReadonlyMap<string, Marked[]>): string {
  return [...runs.values()]
    .flat()
    .map(({ pid, ppid, runId, role, state }) => `${role} ${pid} (parent ${ppid}, ${state}) of ${runId}`)
    .join(", ");
}
