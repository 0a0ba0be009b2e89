import { OpenStarryError } from "../contracts/errors.js";
import { nearest } from "../lib/nearest.js";
import { isEnded } from "./state.js";
import type { AgentWorker } from "./worker/worker.js";

/** The agents of a daemon, by id, in order of creation. */
export interface AgentTable {
  readonly workers: ReadonlyMap<string, AgentWorker>;
  /** The daemon is being stopped: nothing new is begun. */
  readonly closed: boolean;
  /** Rejects with `agent_not_found`. */
  need(agentId: string): AgentWorker;
  /** For changes: waits until the agents of the last daemon are reconciled. */
  changeable(agentId: string): Promise<AgentWorker>;
  /** Rejects with `agent_exists` when the id is taken, or about to be. */
  refuseTaken(agentId: string): void;
  /** Holds an id while its record is being made: of a thousand requests for one id, one goes on. */
  reserve<T>(agentId: string | undefined, make: () => Promise<T>): Promise<T>;
  /** Its record cannot be read, and may be of a live process: the id stays taken. `problem` says why. */
  quarantine(agentId: string, problem: string): void;
  isQuarantined(agentId: string): boolean;
  /** What is wrong with those in quarantine, by id. */
  readonly quarantined: ReadonlyMap<string, string>;
  /** The id is free again. */
  discard(agentId: string): void;
  add(worker: AgentWorker): void;
  remove(worker: AgentWorker): void;
  readonly opened: Promise<void>;
  open(): void;
  close(): void;
}

export function createAgentTable(): AgentTable {
  const workers = new Map<string, AgentWorker>();
  const reserved = new Set<string>();
  const quarantined = new Map<string, string>();
  let open = () => {};
  let closed = false;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });

  function need(agentId: string): AgentWorker {
    const worker = workers.get(agentId);
    if (worker) return worker;
    const guess = nearest(agentId, workers.keys());
    throw new OpenStarryError("agent_not_found", {
      detail: `there is no agent "${agentId}"`,
      hint: guess ? `did you mean "${guess}"?` : "list the agents to see their ids",
    });
  }

  async function changeable(agentId: string): Promise<AgentWorker> {
    await opened;
    if (closed) throw new OpenStarryError("daemon_stopping", { detail: "the daemon is stopping" });
    const worker = need(agentId);
    if (worker.stored.deleting) {
      throw new OpenStarryError("agent_is_deleted", {
        detail: `agent ${agentId} is being deleted`,
        hint: "wait until it is gone, then create it anew",
      });
    }
    return worker;
  }

  function refuseTaken(agentId: string) {
    const existing = workers.get(agentId)?.stored.agent;
    const problem = quarantined.get(agentId);
    if (problem !== undefined) {
      throw new OpenStarryError("agent_exists", {
        detail: `"${agentId}" is in quarantine: ${problem}`,
        hint: `choose another agent_id; or DELETE /agents/${agentId} ends what lives of it and forgets it`,
      });
    }
    if (!existing && !reserved.has(agentId)) return;
    const ended = existing && isEnded(existing.state);
    throw new OpenStarryError("agent_exists", {
      detail: `there is an agent "${agentId}" already${existing ? `; it is ${existing.state}` : ""}`,
      hint: ended
        ? `start it again with POST /agents/${agentId}/start, or DELETE /agents/${agentId} first`
        : "use the one that exists, or choose another agent_id",
    });
  }

  return {
    workers,
    get closed() {
      return closed;
    },
    need,
    changeable,
    refuseTaken,
    async reserve(agentId, make) {
      await opened;
      if (closed) throw new OpenStarryError("daemon_stopping", { detail: "the daemon is stopping" });
      if (agentId === undefined) return make();
      refuseTaken(agentId);
      reserved.add(agentId);
      try {
        return await make();
      } finally {
        reserved.delete(agentId);
      }
    },
    quarantine: (agentId, problem) => void quarantined.set(agentId, problem),
    isQuarantined: (agentId) => quarantined.has(agentId),
    quarantined,
    discard: (agentId) => void quarantined.delete(agentId),
    add: (worker) => void workers.set(worker.stored.agent.agent_id, worker),
    remove(worker) {
      const { agent_id } = worker.stored.agent;
      if (workers.get(agent_id) === worker) workers.delete(agent_id);
    },
    opened,
    open: () => open(),
    close() {
      closed = true;
    },
  };
}
