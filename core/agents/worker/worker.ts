import type { Agent, Health, LimitReport } from "../../contracts/agent.js";
import type { Intent } from "../../contracts/agent-control.js";
import type { ProgressStep } from "../../contracts/agent-reports.js";
import type { NewEvent } from "../../contracts/events.js";
import type { RunHandle, RunOutcome, Survivor } from "../../contracts/spawner.js";
import type { Ending, StoredAgent } from "../../contracts/stored-agent.js";
import { heldBy } from "../../template/resources.js";
import { isLive } from "../state.js";
import { move, quietly, RETRY_MS, show, type WorkerContext, type WorkerDeps } from "./context.js";
import { forget } from "./forget.js";
import { createHookQueue } from "./hook-queue.js";
import { createJournalWriter } from "./journal-writer.js";
import { attach, launch } from "./launch.js";
import { nextStep, type WorkerView } from "./next-step.js";
import { reportExit } from "./report-exit.js";
import * as reports from "./run-reports.js";
import { type DesiredChange, setDesired } from "./set-desired.js";
import { settle } from "./settle.js";
import { endRun, stopRun } from "./stop-run.js";
import { createAgentTimers } from "./timers.js";
import { initialState, type WorkerState } from "./worker-state.js";

export type { WorkerDeps } from "./context.js";

/** Told by a worker of what becomes of it. */
export interface WorkerObserver {
  /** After every change of state. */
  changed(worker: AgentWorker): void;
  /** When there is nothing more to do for now. */
  idle(worker: AgentWorker): void;
  /** Once, when the record is gone. */
  gone(worker: AgentWorker): void;
}

/**
 * Runs one agent: everything about it happens here, one step after another. `nextStep` decides, a file beside this one
 * does each step.
 */
export class AgentWorker {
  readonly #state: WorkerState;
  readonly #observer: Pick<WorkerObserver, "idle">;
  readonly #context: WorkerContext;

  /**
   * `written` resolves when the record is durable: the process may be made meanwhile, and waits at its gate until
   * it is.
   */
  constructor(
    stored: StoredAgent,
    deps: WorkerDeps & WorkerObserver,
    written: Promise<void> = Promise.resolve(),
  ) {
    const id = stored.agent.agent_id;
    const { clock, log } = deps;
    this.#observer = deps;
    this.#state = initialState(stored, written);
    this.#context = {
      id,
      deps,
      state: this.#state,
      poke: this.poke,
      changed: () => deps.changed(this),
      gone: () => deps.gone(this),
      hookQueue: createHookQueue(id, log),
      journal: createJournalWriter({ current: () => this.#state.stored, append: deps.write, log }),
      timers: createAgentTimers(clock, {
        backoffOver: () => this.#backoffOver(),
        notReady: (runId, reason) => this.#notReady(runId, reason),
        forget: () => this.#forgetSoon(),
      }),
    };
  }

  get stored(): StoredAgent {
    return this.#state.stored;
  }
  /** Waits in `pending` for something, and says for what. */
  get waiting(): boolean {
    return this.#state.waiting;
  }
  /** A process is being made, and is not let through its gate yet. */
  get launching(): boolean {
    return this.#state.launching;
  }
  /** A step is being taken, or is about to be. */
  get busy(): boolean {
    return this.#state.busy;
  }
  /** Processes that even SIGKILL did not end. */
  get survivors(): readonly Survivor[] {
    return this.#state.survivors;
  }

  /** Changes what is desired, and journals it. Rejects with `journal_unavailable`, nothing changed. */
  setDesired(patch: Partial<StoredAgent>, change?: DesiredChange): Promise<void> {
    return setDesired(this.#context, patch, change);
  }

  /** Looks again at what there is to do. */
  readonly poke = (): void => {
    this.#state.lookAgain = true;
    // At a boot no step is taken before all plugins are started, whatever happens meanwhile.
    if (this.#state.busy || !this.#state.resumed) return;
    this.#state.busy = true;
    void this.#loop();
  };

  /** No start any more; a live run is ended when `ending` is given, within `graceMs` where that is shorter. */
  noMoreStarts(ending?: Ending, graceMs?: number): void {
    const state = this.#state;
    state.noMoreStarts = true;
    if (graceMs !== undefined) state.graceMs = graceMs;
    if (ending && isLive(state.stored.agent.state) && !state.stored.ending)
      state.stored = { ...state.stored, ending };
    this.poke();
  }

  /** Takes over a run of an earlier daemon that lives. */
  adopt(handle: RunHandle): void {
    const { held, containment } = handle;
    show(this.#context, { limits: heldBy(this.stored.agent.limits, held), containment });
    attach(this.#context, handle, { adopted: true });
  }

  /** Records the end of an earlier daemon's run, at the first step. */
  recordExit(outcome: RunOutcome): void {
    this.#state.outcome = outcome;
  }

  /** Begins, after a boot: everything about the agent is known by now. */
  resume(): void {
    this.#state.resumed = true;
    this.#context.timers.follow(this.stored);
    this.poke();
  }

  /** Cancels the timers. */
  dispose(): void {
    this.#context.timers.dispose();
  }

  signal(signal: string): Promise<void> {
    return reports.signalRun(this.#context, signal);
  }
  throttle(percent: number | undefined, intent: Intent): Promise<void> {
    return reports.throttleRun(this.#context, percent, intent);
  }
  reportReady(runId: string): Promise<void> {
    return reports.recordReady(this.#context, runId);
  }
  reportStarting(runId: string, note: { reason?: string; withinMs?: number }): Promise<void> {
    return reports.recordStarting(this.#context, runId, note);
  }
  reportHealth(runId: string, health: Health, reason: string): Promise<void> {
    return reports.recordHealth(this.#context, runId, health, reason);
  }
  reportLimit(runId: string, report: LimitReport & { actor: string }): Promise<void> {
    return reports.recordLimit(this.#context, runId, report);
  }
  reportProgress(runId: string, step: ProgressStep, reason: string): Promise<void> {
    return reports.recordProgress(this.#context, runId, step, reason);
  }
  observe(
    patch: Partial<Agent>,
    event?: NewEvent,
    others?: readonly { readonly stored: StoredAgent }[],
  ): Promise<void> {
    return reports.observe(this.#context, patch, event, others);
  }

  async #loop(): Promise<void> {
    const { deps, timers, id } = this.#context;
    const state = this.#state;
    while (state.lookAgain) {
      state.lookAgain = false;
      try {
        if (await this.#step()) state.lookAgain = true;
      } catch (error) {
        deps.log.error({ agent_id: id, err: error }, "a step failed; retrying");
        timers.retry(RETRY_MS, this.poke);
      }
    }
    state.busy = false;
    this.#observer.idle(this);
  }

  /** Takes the next step; true when there may be more to do. */
  async #step(): Promise<boolean> {
    const context = this.#context;
    const state = this.#state;
    if (!state.outcome && context.journal.isBehind) await quietly(context.journal.write({}));
    const { outcome, handle, stored } = state;
    switch (nextStep(viewOf(state))) {
      case "settle":
        return outcome ? settle(context, outcome) : false;
      case "report-exit":
        return stored.unreported ? reportExit(context, stored.unreported) : false;
      case "stop-run":
        if (handle) stopRun(context, handle);
        return false;
      case "forget":
        await forget(context);
        return false;
      case "rest":
        await quietly(move(context, "rest", { reason: stored.agent.reason }));
        return false;
      case "launch":
        return launch(context);
      case "wait":
        return false;
    }
  }

  #backoffOver(): void {
    // A stop that came meanwhile has set its own reason.
    if (this.stored.agent.desired === "running") void quietly(move(this.#context, "due", {})).then(this.poke);
  }

  #notReady(runId: string, late: string): void {
    const { reason: why } = this.stored.agent;
    const reason = why === undefined ? late : `${late}: ${why}`;
    endRun(this.#context, runId, { cause: "start_timeout", actor: "daemon", reason });
  }

  #forgetSoon(): void {
    this.#state.stored = { ...this.stored, deleting: true };
    this.poke();
  }
}

function viewOf({ stored, outcome, handle, noMoreStarts }: WorkerState): WorkerView {
  return {
    state: stored.agent.state,
    desired: stored.agent.desired,
    hasOutcome: outcome !== undefined,
    hasUnreportedRun: stored.unreported !== undefined,
    hasHandle: handle !== undefined,
    isEnding: stored.ending !== undefined,
    isDeleting: stored.deleting === true,
    noMoreStarts,
  };
}
