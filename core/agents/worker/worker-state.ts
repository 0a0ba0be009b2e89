import type { RunHandle, RunOutcome, Survivor } from "../../contracts/spawner.js";
import type { Ending, StoredAgent } from "../../contracts/stored-agent.js";

/** Everything that one worker knows of its agent. One object, changed by the steps; nothing else holds any of it. */
export interface WorkerState {
  stored: StoredAgent;
  /** The live run, where this daemon started or adopted it. */
  handle: RunHandle | undefined;
  /** How the run ended, until that is in the record. */
  outcome: RunOutcome | undefined;
  /** Processes that even SIGKILL did not end. */
  survivors: Survivor[];
  /** The stop that was asked of a handle, so that it is not asked for again with a longer grace. */
  stopAsked: { handle: RunHandle; graceMs: number } | undefined;
  /** A shorter grace than the template's, for the end that is under way. */
  graceMs: number | undefined;
  /** By the monotonic clock; absent for adopted runs. */
  startedAtMs: number | undefined;
  /** A start that `beforeSpawn` put off, and until when, by the monotonic clock. */
  deferred: { reason: string; dueMs: number } | undefined;
  /** The newest change of what is desired. A process is let through its gate only after it is durable. */
  pendingWrite: Promise<void>;
  /** Why a run that ends by itself is put down to something else: it was interrupted and made no progress since. */
  interrupted: Ending | undefined;
  /** The boot has come to this agent: from now on steps are taken. */
  resumed: boolean;
  /** The daemon stops, or lets go: nothing is started any more. */
  noMoreStarts: boolean;
  /** Waits in `pending`, with a reason. */
  waiting: boolean;
  /** A process is being made, and is not let through its gate yet. */
  launching: boolean;
  /** A step is being taken, or is about to be. */
  busy: boolean;
  /** Something changed while a step was being taken. */
  lookAgain: boolean;
}

export function initialState(stored: StoredAgent, written: Promise<void>): WorkerState {
  return {
    stored,
    handle: undefined,
    outcome: undefined,
    survivors: [],
    stopAsked: undefined,
    graceMs: undefined,
    startedAtMs: undefined,
    deferred: undefined,
    pendingWrite: written,
    interrupted: undefined,
    resumed: false,
    noMoreStarts: false,
    waiting: false,
    launching: false,
    busy: false,
    lookAgain: false,
  };
}
