import type { Agent } from "../contracts/agent.js";
import type { AgentLookup } from "../contracts/agent-lookup.js";
import type { Clock } from "../contracts/clock.js";
import { OpenStarryError } from "../contracts/errors.js";
import { formatDuration } from "../lib/units.js";
import { isEnded, isLive } from "./state.js";
import type { AgentWorker } from "./worker/worker.js";

/** `over`: no process, whatever comes next. */
export type Condition = Parameters<AgentLookup["wait"]>[1] | "over";

export interface Waiters {
  /** Resolves with the agent when the condition holds. Rejects with `timeout` or `tree_survived`. */
  wait(
    worker: AgentWorker,
    condition: Condition,
    options?: { timeoutMs?: number; signal?: AbortSignal },
  ): Promise<Agent>;
  /** An agent changed. */
  look(worker: AgentWorker): void;
  /** Its record is gone: every condition that can still come true has. */
  gone(worker: AgentWorker): void;
}

interface Waiter {
  condition: Condition;
  done: (agent: Agent) => void;
  fail: (error: OpenStarryError) => void;
}

/** Those who wait for agents to change: nobody polls. */
export function createWaiters(clock: Clock, current: (agentId: string) => AgentWorker | undefined): Waiters {
  const waiting = new Map<AgentWorker, Set<Waiter>>();

  function wait(
    worker: AgentWorker,
    condition: Condition,
    { timeoutMs, signal }: { timeoutMs?: number; signal?: AbortSignal } = {},
  ): Promise<Agent> {
    if (holds(worker, condition)) return Promise.resolve(worker.stored.agent);
    return new Promise((resolve, reject) => {
      const list = waiting.get(worker) ?? new Set();
      waiting.set(worker, list);
      const late = (why: string) =>
        waiter.fail(
          new OpenStarryError("timeout", {
            detail: `agent ${worker.stored.agent.agent_id} was not "${condition}" ${why}; it is ${worker.stored.agent.state}`,
            hint: "ask again to go on waiting",
          }),
        );
      const cancel =
        timeoutMs === undefined
          ? () => {}
          : clock.after(timeoutMs, () => late(`within ${formatDuration(timeoutMs)}`));
      const aborted = () => late("when the wait was given up");
      const leave = () => {
        cancel();
        signal?.removeEventListener("abort", aborted);
        list.delete(waiter);
        if (list.size === 0) waiting.delete(worker);
      };
      const waiter: Waiter = {
        condition,
        done: (agent) => {
          leave();
          resolve(agent);
        },
        fail: (error) => {
          leave();
          reject(error);
        },
      };
      list.add(waiter);
      signal?.addEventListener("abort", aborted, { once: true });
      if (signal?.aborted) aborted();
    });
  }

  function holds(worker: AgentWorker, condition: Condition): boolean {
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
        return current(agent.agent_id) !== worker;
    }
  }

  return {
    wait,
    look(worker) {
      for (const waiter of [...(waiting.get(worker) ?? [])]) {
        if (holds(worker, waiter.condition)) waiter.done(worker.stored.agent);
        else if (
          worker.survivors.length > 0 &&
          waiter.condition !== "ready" &&
          waiter.condition !== "launched"
        ) {
          waiter.fail(survived(worker));
        }
      }
    },
    gone(worker) {
      for (const waiter of [...(waiting.get(worker) ?? [])]) waiter.done(worker.stored.agent);
    },
  };
}

function survived(worker: AgentWorker): OpenStarryError {
  const { survivors, stored } = worker;
  const names = survivors.map(({ pid, name }) => `${name} (pid ${pid})`).join(", ");
  return new OpenStarryError("tree_survived", {
    detail: `agent ${stored.agent.agent_id}: these processes could not be ended: ${names}`,
    hint: "they hang in the operating system, or are of another user; it goes on trying, and its record stays `stopping`",
    data: { survivors: survivors.map((survivor) => ({ ...survivor })) },
  });
}
