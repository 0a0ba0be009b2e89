import { OpenStarryError } from "../contracts/errors.js";
import { nearest } from "../lib/nearest.js";
import { isEnded } from "./state.js";
import type { AgentWorker } from "./worker/worker.js";

/** The agents of a daemon, by id, in order of creation. */
export class AgentTable {
  readonly #workers = new Map<string, AgentWorker>();
  /** Ids whose record is being made. */
  readonly #reserved = new Set<string>();
  readonly #quarantined = new Map<string, string>();
  #closed = false;
  #open = (): void => {};
  /** Resolves when the agents of the last daemon are reconciled. */
  readonly opened = new Promise<void>((resolve) => {
    this.#open = resolve;
  });

  get workers(): ReadonlyMap<string, AgentWorker> {
    return this.#workers;
  }

  /** What is wrong with the agents in quarantine, by id. */
  get quarantined(): ReadonlyMap<string, string> {
    return this.#quarantined;
  }

  /** The daemon is being stopped: nothing new is begun. */
  get closed(): boolean {
    return this.#closed;
  }

  open(): void {
    this.#open();
  }

  close(): void {
    this.#closed = true;
  }

  /** Throws `agent_not_found`. */
  need(agentId: string): AgentWorker {
    const worker = this.#workers.get(agentId);
    if (worker) return worker;
    const guess = nearest(agentId, this.#workers.keys());
    throw new OpenStarryError("agent_not_found", {
      detail: `there is no agent "${agentId}"`,
      hint: guess ? `did you mean "${guess}"?` : "list the agents to see their ids",
    });
  }

  /**
   * For changes. An agent that is not known yet is waited for until all agents of the config are brought back. Rejects
   * with `daemon_stopping`, `agent_not_found`, `agent_is_deleted`.
   */
  async changeable(agentId: string): Promise<AgentWorker> {
    if (!this.#workers.has(agentId)) await this.opened;
    this.#refuseClosed();
    const worker = this.need(agentId);
    if (worker.stored.deleting) {
      throw new OpenStarryError("agent_is_deleted", {
        detail: `agent ${agentId} is being deleted`,
        hint: "wait until it is gone, then create it anew",
      });
    }
    return worker;
  }

  /** Throws `agent_exists` when the id is taken, or about to be. */
  refuseTaken(agentId: string): void {
    const existing = this.#workers.get(agentId)?.stored.agent;
    const problem = this.#quarantined.get(agentId);
    if (problem !== undefined) {
      throw new OpenStarryError("agent_exists", {
        detail: `"${agentId}" is in quarantine: ${problem}`,
        hint: `choose another agent_id; or DELETE /agents/${agentId} ends what lives of it and forgets it`,
      });
    }
    if (!existing && !this.#reserved.has(agentId)) return;
    const ended = existing && isEnded(existing.state);
    throw new OpenStarryError("agent_exists", {
      detail: `there is an agent "${agentId}" already${existing ? `; it is ${existing.state}` : ""}`,
      hint: ended
        ? `start it again with POST /agents/${agentId}/start, or DELETE /agents/${agentId} first`
        : "use the one that exists, or choose another agent_id",
    });
  }

  /** Holds an id while its record is being made: of a thousand requests for one id, one goes on. */
  async reserve<T>(agentId: string | undefined, make: () => Promise<T>): Promise<T> {
    await this.#untilOpen();
    if (agentId === undefined) return make();
    this.refuseTaken(agentId);
    this.#reserved.add(agentId);
    try {
      return await make();
    } finally {
      this.#reserved.delete(agentId);
    }
  }

  /** Keeps an id taken whose record cannot be read, since a process may live. `problem` says why. */
  quarantine(agentId: string, problem: string): void {
    this.#quarantined.set(agentId, problem);
  }

  isQuarantined(agentId: string): boolean {
    return this.#quarantined.has(agentId);
  }

  /** Frees an id from quarantine. */
  discard(agentId: string): void {
    this.#quarantined.delete(agentId);
  }

  add(worker: AgentWorker): void {
    this.#workers.set(worker.stored.agent.agent_id, worker);
  }

  remove(worker: AgentWorker): void {
    const { agent_id } = worker.stored.agent;
    if (this.#workers.get(agent_id) === worker) this.#workers.delete(agent_id);
  }

  async #untilOpen(): Promise<void> {
    await this.opened;
    this.#refuseClosed();
  }

  #refuseClosed(): void {
    if (this.#closed) throw new OpenStarryError("daemon_stopping", { detail: "the daemon is stopping" });
  }
}
