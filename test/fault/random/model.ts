import type { Agent } from "../../../core/index.js";
import type { Answer } from "../../helpers/http-request.js";
import type { Kind } from "./kinds.js";

/** What is known of one agent from the daemon's answers. `undefined`: either may be, nobody has answered. */
export interface Belief {
  exists: boolean | undefined;
  desired: Agent["desired"] | undefined;
  kind: Kind | undefined;
  /** The run that was answered and that nothing has been done to: it has to go on. */
  untouched: { pid: number; run_id: string } | undefined;
  /** Its deletion was acknowledged, and may still be under way. */
  fading: boolean;
  busy: boolean;
}

/** Its end state when a request is acknowledged. */
export interface Wanted {
  exists: boolean;
  desired?: Agent["desired"];
}

export interface Model {
  readonly agents: ReadonlyMap<string, Belief>;
  /** Runs whose agent was killed from outside. */
  readonly killed: Set<string>;
  /** Runs whose shim was killed: nobody can know how they ended. */
  readonly unwitnessed: Set<string>;
  /** Agents of which a stop or a deletion was not answered: it may have been begun, and never recorded. */
  readonly unheard: Set<string>;
  /** What was answered that should not have been. */
  readonly complaints: string[];
  /** Makes a request, and learns from whether and how it is answered. Answers that in words. */
  request(agentId: string, wanted: Wanted, send: () => Promise<Answer>): Promise<string>;
  /** What is the case is taken for what is known. */
  learn(agents: readonly Agent[], kindOf: (agent: Agent) => Kind | undefined): void;
}

export function createModel(agentIds: readonly string[]): Model {
  const nothing = { desired: undefined, kind: undefined, untouched: undefined, fading: false, busy: false };
  const agents = new Map(agentIds.map((id): [string, Belief] => [id, { exists: false, ...nothing }]));
  const complaints: string[] = [];
  const unheard = new Set<string>();
  const killed = new Set<string>();

  function learnFrom(belief: Belief, wanted: Wanted, { status, json }: Answer) {
    belief.exists = wanted.exists;
    belief.desired = wanted.desired;
    belief.fading = !wanted.exists && status === 202;
    const { state, pid, run_id } = json as unknown as Agent;
    if (state !== "running" || pid === undefined || run_id === undefined || belief.kind?.ends) return;
    // A run that was killed a moment ago may still be told as running.
    if (!killed.has(run_id)) belief.untouched = { pid, run_id };
  }

  return {
    agents,
    killed,
    unwitnessed: new Set(),
    unheard,
    complaints,
    async request(agentId, wanted, send) {
      const belief = agents.get(agentId);
      if (!belief) throw new Error(`there is no ${agentId}`);
      const before = { ...belief };
      const excused = belief.exists === undefined || belief.fading || belief.busy;
      belief.busy = true;
      belief.untouched = undefined;
      if (belief.exists !== wanted.exists) belief.exists = undefined;
      if (belief.desired !== wanted.desired) belief.desired = undefined;
      let answer: Answer;
      try {
        answer = await send();
      } catch {
        if (wanted.desired !== "running") unheard.add(agentId);
        return "no answer";
      } finally {
        belief.busy = false;
      }
      const { status, json } = answer;
      if (status < 300) {
        learnFrom(belief, wanted, answer);
        return String(status);
      }
      const said = `${status} ${json?.["code"]}`;
      if (status < 500) Object.assign(belief, { ...before, untouched: undefined, busy: false });
      if (status !== 503 && !excused)
        complaints.push(`${agentId} was answered ${said}: ${JSON.stringify(json)}`);
      return said;
    },
    learn(found, kindOf) {
      unheard.clear();
      for (const [id, belief] of agents) {
        const agent = found.find(({ agent_id }) => agent_id === id);
        Object.assign(belief, { exists: agent !== undefined, ...nothing });
        if (!agent) continue;
        belief.desired = agent.desired;
        belief.kind = kindOf(agent);
        const { state, pid, run_id } = agent;
        if (state === "running" && pid !== undefined && run_id !== undefined && !belief.kind?.ends)
          belief.untouched = { pid, run_id };
      }
    },
  };
}
