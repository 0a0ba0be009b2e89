import type { Agent } from "../contracts/agent.js";
import type { AgentLookup } from "../contracts/agent-lookup.js";
import type { Clock } from "../contracts/clock.js";
import { OpenStarryError } from "../contracts/errors.js";
import { formatDuration } from "../lib/units.js";
import { isEnded, isLive } from "./state.js";
import type { AgentWorker } from "./worker/worker.js";

/** `over`: no process, whatever comes next. */
export type Condition = Parameters<AgentLookup["wait"]>[1] | "over";

export interface WaitOptions {
  timeoutMs?: number;
  signal?: AbortSignal;
}

interface Waiter {
  condition: Condition;
  done: (agent: Agent) => void;
  fail: (error: OpenStarryError) => void;
}

/** Callers that wait for agents to change. They are told at each change; nothing polls. */
export class Waiters {
  readonly #waiting = new Map<AgentWorker, Set<Waiter>>();
  readonly #clock: Pick<Clock, "after">;
  readonly #current: (agentId: string) => AgentWorker | undefined;

  /** `current` answers the worker that has an id now. */
  constructor(clock: Pick<Clock, "after">, current: (agentId: string) => AgentWorker | undefined) {
    this.#clock = clock;
    this.#current = current;
  }

  /** Resolves with the agent when the condition holds. Rejects with `timeout` or `tree_survived`. */
  wait(worker: AgentWorker, condition: Condition, options: WaitOptions = {}): Promise<Agent> {
    if (this.#holds(worker, condition)) return Promise.resolve(worker.stored.agent);
    return new Promise((resolve, reject) => this.#add(worker, condition, options, { resolve, reject }));
  }

  /** Looks at those who wait for an agent that changed. */
  look(worker: AgentWorker): void {
    for (const waiter of [...(this.#waiting.get(worker) ?? [])]) {
      const { condition } = waiter;
      if (this.#holds(worker, condition)) waiter.done(worker.stored.agent);
      else if (worker.survivors.length > 0 && condition !== "ready" && condition !== "launched")
        waiter.fail(survived(worker));
    }
  }

  /** Ends every wait for an agent whose record is gone: each condition that can still come true has. */
  gone(worker: AgentWorker): void {
    for (const waiter of [...(this.#waiting.get(worker) ?? [])]) waiter.done(worker.stored.agent);
  }

  #add(
    worker: AgentWorker,
    condition: Condition,
    { timeoutMs, signal }: WaitOptions,
    { resolve, reject }: { resolve: (agent: Agent) => void; reject: (error: OpenStarryError) => void },
  ): void {
    const list = this.#waiting.get(worker) ?? new Set();
    this.#waiting.set(worker, list);
    const late = (when: string) => waiter.fail(notInTime(worker, condition, when));
    const aborted = () => late("when the wait was given up");
    const cancel =
      timeoutMs === undefined
        ? () => {}
        : this.#clock.after(timeoutMs, () => late(`within ${formatDuration(timeoutMs)}`));
    const leave = () => {
      cancel();
      signal?.removeEventListener("abort", aborted);
      list.delete(waiter);
      if (list.size === 0) this.#waiting.delete(worker);
    };
    const waiter: Waiter = {
      condition,
      done(agent) {
        leave();
        resolve(agent);
      },
      fail(error) {
        leave();
        reject(error);
      },
    };
    list.add(waiter);
    signal?.addEventListener("abort", aborted, { once: true });
    if (signal?.aborted) aborted();
  }

  #holds(worker: AgentWorker, condition: Condition): boolean {
    const { agent, unreported } = worker.stored;
    const { state } = agent;
    switch (condition) {
      case "launched":
        return !worker.launching && (state !== "pending" || worker.waiting);
      case "ready":
        return state === "running" || isEnded(state);
      case "ended":
        return isEnded(state) && !unreported;
      case "over":
        return !isLive(state) && !unreported;
      case "settled":
        return !worker.busy && state !== "stopping" && !(state === "pending" && !worker.waiting);
      case "gone":
        return this.#current(agent.agent_id) !== worker;
    }
  }
}

function notInTime({ stored: { agent } }: AgentWorker, condition: Condition, when: string): OpenStarryError {
  return new OpenStarryError("timeout", {
    detail: `agent ${agent.agent_id} was not "${condition}" ${when}; it is ${agent.state}`,
    hint: "ask again to go on waiting",
  });
}

function survived({ survivors, stored }: AgentWorker): OpenStarryError {
  const names = survivors.map(({ pid, name }) => `${name} (pid ${pid})`).join(", ");
  return new OpenStarryError("tree_survived", {
    detail: `agent ${stored.agent.agent_id}: these processes could not be killed: ${names}`,
    hint: "they are uninterruptible or owned by another user; the daemon keeps retrying, and the record stays `stopping`",
    data: { survivors: survivors.map((survivor) => ({ ...survivor })) },
  });
}
