import type { Cause, Containment, ExitStatus, LimitReport, Throttle } from "./agent.js";
import { defineSlot } from "./slot.js";

/**
 * Everything needed to start one run. Taps of `beforeSpawn` may change all but the identity fields
 * (`agentId`, `runId`, `templateId`, `parentId`) and the `OPENSTARRY_*` variables.
 */
export interface SpawnSpec {
  readonly agentId: string;
  readonly runId: string;
  readonly templateId: string;
  readonly parentId?: string;
  /** A path, or a name looked up in `PATH`. Never given to a shell. */
  readonly command: string;
  readonly args: readonly string[];
  /** Absent: the agent's run folder. */
  readonly cwd?: string;
  /** The folder that relative `command`, `cwd` and `envFiles` are resolved from. */
  readonly baseDir?: string;
  /** Literal values. */
  readonly env: Readonly<Record<string, string>>;
  /** Names of variables to pass on from the daemon's environment; a trailing `?` means optional. */
  readonly passEnv: readonly string[];
  /** `NAME=value` files, read at each spawn, never journaled. */
  readonly envFiles: readonly string[];
  /** Files that only the agent can read; the variable `env` has the path of each. */
  readonly files: readonly RunFile[];
  readonly user?: string;
  /** The limits that the operating system enforces, as far as the spawner can arrange it. */
  readonly limits?: OsLimits;
  readonly stop: { readonly signal: string; readonly graceMs: number };
  readonly logs: LogRules;
}

/** How much output of an agent is kept. */
export interface LogRules {
  /** An output file that is larger than this is rotated. */
  readonly maxSizeBytes: number;
  /** How many older segments are kept of each stream: archives, and the output of earlier runs. */
  readonly keep: number;
  /** Both streams in one file. */
  readonly merge: boolean;
}

/** Limits of a run that an operating system can enforce. */
export interface OsLimits {
  /** Memory of the whole tree; a process that exceeds it is killed. */
  readonly memoryBytes?: number;
  /** CPU of the whole tree, in percent of one core. */
  readonly cpuPercent?: number;
  /** Processes of the whole tree; more are refused. */
  readonly pids?: number;
  /** Open files of each process; more are refused. */
  readonly openFiles?: number;
}

/** Without `content`: a file that the agent may create, such as its result. */
export interface RunFile {
  readonly env: string;
  readonly name: string;
  readonly content?: string;
}

export interface Survivor {
  pid: number;
  name: string;
}

/** A live process of a run's tree. Its start time tells it from a later process with the same pid. */
export interface ProcessRef {
  readonly pid: number;
  /** In clock ticks since boot. */
  readonly start_ticks: number;
}

/** The live processes of an agent that the journal does not know, or of which it has no readable record. */
export interface OrphanedProcess {
  agentId: string;
  pids: number[];
}

/** What is known of a run after its exit. */
export interface RunOutcome {
  status: ExitStatus;
  /** The last lines of its output, at most 4 KiB. */
  outputTail?: string;
  /** The content of the file told as `OPENSTARRY_RESULT_FILE`, at most 1 MiB. */
  result?: string;
  /** The time of the exit, when the spawner knows it: the run ended while no daemon was alive. */
  endedAtMs?: number;
  /** A remark that is added to the reason of the exit. */
  note?: string;
  /** Set where the spawner knows why: `host_reboot`, `oom`, or `daemon_stop` for one that never ran. */
  cause?: Cause;
}

/** One live run. */
export interface RunHandle {
  /** Identifies the process for `adopt`, and no other process. JSON. */
  readonly target: unknown;
  readonly pid?: number;
  readonly containment: Containment;
  /** The limits of the run that the operating system enforces. Absent: none. */
  readonly held?: OsLimits;
  /** Resolves once, when the agent's process and its whole tree have exited. Never rejects. */
  readonly exit: Promise<RunOutcome>;
  /** Sends a signal to the agent's own process. Does nothing when the run is over. */
  signal(signal: string): Promise<void>;
  /**
   * Ends the tree: sends the stop signal, waits up to `graceMs`, then kills. Resolves when the tree is gone, or with
   * the processes that survived; `exit` then stays unresolved until they are gone. A further call can only shorten the
   * grace period.
   */
  stop(how: { signal: string; graceMs: number }): Promise<{ survivors: Survivor[] }>;
  /**
   * Limits the CPU of the tree, in percent of one core and at most to its limit; `undefined` ends that. Resolves with
   * the way in which the tree is throttled now. Absent: this spawner cannot throttle.
   */
  throttle?(percent: number | undefined): Promise<Throttle["by"] | undefined>;
  /** Calls `listener` when the operating system enforced a limit and the run continues. At most one listener. */
  onLimit?(listener: (report: LimitReport) => void): void;
}

/** Which lines of a run's output to read. */
export interface LogQuery {
  stream?: "stdout" | "stderr";
  /** The number of last lines to read. */
  tail?: number;
  /** Reads the previous run; with `cursor`, only the run of the cursor. */
  previous?: boolean;
  /** The earliest time of output, of any run, in milliseconds since the epoch. Slightly older lines may be returned. */
  since?: number;
  /** The latest time of output, in milliseconds since the epoch. Slightly newer lines may be returned. */
  until?: number;
  /** Continue after the line that had this cursor: opaque, beginning with the run's id. */
  cursor?: string;
  /** Keeps returning new output, over restarts, until `signal` aborts. */
  follow?: boolean;
  signal?: AbortSignal;
}

export interface LogLine {
  run_id: string;
  stream: "stdout" | "stderr";
  /** Bytes as the agent wrote them, less the line end. */
  bytes: Uint8Array;
  cursor: string;
  /** The line has no end yet: a long line continues in the next one of this stream. */
  partial?: boolean;
  /** Why earlier output is missing here: beyond `logs.keep`, or because the agent emptied its file. */
  gap?: "pruned" | "truncated";
}

/**
 * Starts and ends runs. A run is a process, or what the spawner has in its place.
 */
export interface Spawner {
  readonly name: string;
  readonly capabilities: {
    /** Whether a later daemon can adopt the runs of an earlier one. */
    readonly adopt: boolean;
  };
  /**
   * Checks what can be known before anything is journaled: the command, its exec bit and interpreter, the folder, the
   * user, the variables. Rejects with `command_not_found`,
   * `command_not_executable`, `cwd_invalid`, `user_invalid` or `env_missing`.
   */
  check(spec: SpawnSpec): Promise<void>;
  /**
   * Creates the process held at the spawn gate, calls `commit` with its identity, and releases it only after `commit`
   * resolved. When `commit` rejects, or the daemon dies first, the agent never runs. Rejects as `check` does, with
   * `spawn_failed`, or with `SpawnDeferred` when a resource is short that may become free (disk, descriptors,
   * processes), which does not count as a failure.
   */
  spawn(spec: SpawnSpec, commit: (run: RunIdentity) => Promise<void>): Promise<RunHandle>;
  /**
   * Adopts a run that an earlier daemon started. Does not reject for a run that is over: then `handle` is absent and
   * `outcome` has what is still known of it.
   */
  adopt(
    spec: AdoptSpec,
  ): Promise<{ handle: RunHandle; outcome?: never } | { handle?: never; outcome: RunOutcome }>;
  /**
   * Ends the processes of this home's runs that are over by the journal and not `live`. Called once, after all
   * adoptions. A run is over when its agent is `known` and it is not newer than the newest run known of that agent (run
   * ids sort by age). The journal has no readable record of other agents and of newer runs: their processes may run
   * rightly, so they are left alone and returned.
   */
  reapOrphans?(
    live: ReadonlySet<string>,
    known: ReadonlyMap<string, string | undefined>,
  ): Promise<readonly OrphanedProcess[]>;
  /** Ends all processes of an agent without a readable record. Resolves with the processes that survived. */
  discard?(agentId: string): Promise<{ survivors: Survivor[] }>;
  /** Removes the files that are kept of an agent: its output and its run folders. */
  forget?(agentId: string): Promise<void>;
  /**
   * Lists the live processes of these runs' whole trees, the agent's own first, in one pass for all of them. Runs that
   * are over are missing. Rejects when the processes cannot be listed. Absent: this spawner cannot list processes.
   */
  processes?(runIds: readonly string[]): Promise<ReadonlyMap<string, readonly ProcessRef[]>>;
  /**
   * Runs a command in a live run: as its user, in its folder, with its environment and containment. The output is
   * discarded. Resolves with the exit status. When `signal` aborts, the command and all that it started are killed.
   * Rejects when the command could not be run.
   */
  exec?(
    run: { readonly agentId: string; readonly runId: string },
    argv: readonly string[],
    signal: AbortSignal,
  ): Promise<ExitStatus>;
  /** Reads the output of an agent. Absent: this spawner keeps no output. */
  logs?(agentId: string, query: LogQuery): AsyncIterable<LogLine>;
}

export interface RunIdentity {
  target: unknown;
  pid?: number;
  containment: Containment;
  /** As in `RunHandle`. */
  held?: OsLimits;
}

export interface AdoptSpec {
  readonly agentId: string;
  readonly runId: string;
  readonly target: unknown;
  readonly stop: { readonly signal: string; readonly graceMs: number };
  readonly logs: LogRules;
}

export const spawner = defineSlot<Spawner, "many">("spawner", "many");
