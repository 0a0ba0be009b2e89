import type { Operator } from "../../helpers/operator.js";
import type { Dice } from "./dice.js";
import type { Kind } from "./kinds.js";
import type { Belief, Model } from "./model.js";
import { killIfThere, scan } from "./scan.js";

/** One thing that is done to an agent; drawn before the round, so that the seed alone decides it. */
export interface Action {
  atMs: number;
  agentId: string;
  /** What is done, of what can be done to it then. */
  roll: number;
  kind: Kind;
}

export interface Stage {
  home: string;
  /** Of the daemon that was started last. */
  operator: Operator;
  model: Model;
  /** Into the report of the round. */
  note(text: string): void;
}

type Deed = (stage: Stage, action: Action, belief: Belief) => Promise<string>;

const running = { exists: true, desired: "running" } as const;
const stopped = { exists: true, desired: "stopped" } as const;
const gone = { exists: false } as const;

const post = (verb: string, body: object = {}): Deed => {
  const wanted = verb === "stop" ? stopped : running;
  return ({ model, operator }, { agentId }) =>
    model.request(agentId, wanted, () => operator.post(`/agents/${agentId}/${verb}`, body));
};

const create: Deed = ({ model, operator }, { agentId, kind }, belief) => {
  belief.kind = kind;
  const input = { agent_id: agentId, template_id: kind.template_id };
  return model.request(agentId, running, () => operator.post("/agents", input));
};

const remove =
  (query: string): Deed =>
  ({ model, operator }, { agentId }) =>
    model.request(agentId, gone, () => operator.delete(`/agents/${agentId}${query}`));

/** Two at once, of which one comes second. */
const twice =
  (deed: Deed): Deed =>
  async (...args) =>
    (await Promise.all([deed(...args), deed(...args)])).join(" and ");

const killAgent: Deed = async ({ home, model }, { agentId }, belief) => {
  const main = scan(home).find((it) => it.agentId === agentId && it.role === "main");
  if (!main) return "not there";
  belief.untouched = undefined;
  model.killed.add(main.runId);
  return kill(main.pid);
};

const killShim: Deed = async ({ home, model }, { agentId }) => {
  const all = scan(home).filter((it) => it.agentId === agentId);
  const main = all.find(({ role }) => role === "main");
  const shim = all.find(({ pid, role }) => role === "shim" && pid === main?.ppid);
  if (!shim) return "not there";
  model.unwitnessed.add(shim.runId);
  return kill(shim.pid);
};

const kill = (pid: number) => (killIfThere(pid) ? `pid ${pid}` : "gone meanwhile");

/** With how often it is done to an agent that exists. */
const DEEDS: readonly (readonly [number, string, Deed])[] = [
  [20, "restart", post("restart")],
  [6, "restart, not waited for", post("restart", { wait: false })],
  [5, "restart twice", twice(post("restart"))],
  [10, "stop", post("stop")],
  [4, "stop, not waited for", post("stop", { wait: false })],
  [14, "start", post("start")],
  [4, "start twice", twice(post("start"))],
  [10, "delete", remove("")],
  [4, "delete, not waited for", remove("?wait=false")],
  [4, "delete by force", remove("?force=true")],
  [18, "kill -9 of the agent", killAgent],
  [1, "kill -9 of the shim", killShim],
];
const ALL_WEIGHTS = DEEDS.reduce((sum, [weight]) => sum + weight, 0);

function deedOf({ roll }: Action, { exists }: Belief): readonly [string, Deed] {
  if (!exists) return ["create", create];
  let left = roll * ALL_WEIGHTS;
  for (const [weight, name, deed] of DEEDS) {
    left -= weight;
    if (left < 0) return [name, deed];
  }
  throw new Error("unreachable");
}

/** Draws what a round does to the agents, within `spanMs`. */
export function drawActions(dice: Dice, model: Model, kinds: readonly Kind[], spanMs: number): Action[] {
  const ids = [...model.agents.keys()];
  return Array.from({ length: 3 + dice.below(10) }, () => ({
    atMs: dice.soon(spanMs),
    agentId: ids[dice.below(ids.length)] as string,
    roll: dice.roll(),
    kind: kinds[dice.below(kinds.length)] as Kind,
  }));
}

/** Does it, unless something else is being done to that agent. */
export async function perform(stage: Stage, action: Action, began: number): Promise<void> {
  const { agentId, kind } = action;
  const belief = stage.model.agents.get(agentId);
  if (!belief || belief.busy) return;
  const [name, deed] = deedOf(action, belief);
  const at = Math.round(performance.now() - began);
  let outcome = "failed";
  try {
    outcome = await deed(stage, action, belief);
  } finally {
    const what = deed === create ? `create ${kind.template_id}` : name;
    const took = Math.round(performance.now() - began) - at;
    stage.note(`${at} ms: ${agentId}: ${what}: ${outcome} (${took} ms)`);
  }
}

/** Something that happens to an agent while there is no daemon. */
export async function killSomebody(stage: Stage, dice: Dice): Promise<void> {
  const there = scan(stage.home).filter(({ role }) => role === "main");
  const one = there[dice.below(Math.max(1, there.length))];
  const belief = one && stage.model.agents.get(one.agentId);
  if (!belief) return;
  belief.untouched = undefined;
  stage.model.killed.add(one.runId);
  stage.note(`${one.agentId}: kill -9 of the agent while there is no daemon: ${kill(one.pid)}`);
}
