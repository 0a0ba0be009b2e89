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
  /** What relative `command`, `cwd` and `envFiles` start from. */
  readonly baseDir?: string;
  /** Literal values. */
  readonly env: Readonly<Record<string, string>>;
  /** Names to hand through from the daemon's own environment; a trailing `?` means optional. */
  readonly passEnv: readonly string[];
  /** `NAME=value` files, read at each spawn, never journaled. */
  readonly envFiles: readonly string[];
  /** Files put where the agent alone can read them; each path is told in the variable `env`. */
  readonly files: readonly RunFile[];
  readonly user?: string;
  /** What the operating system shall hold, as far as the spawner can have it do so. */
  readonly limits?: OsLimits;
  readonly stop: { readonly signal: string; readonly graceMs: number };
  readonly logs: LogRules;
}

/** How the output of a run is kept. */
export interface LogRules {
  /** What is older is put away when an output file holds more than this. */
  readonly maxSizeBytes: number;
  /** How many older pieces of output are kept of each stream: what was put away, and what former runs left. */
  readonly keep: number;
  /** Both streams in one file. */
  readonly merge: boolean;
}

/** Limits of a run as an operating system holds them. */
export interface OsLimits {
  /** Of the whole tree; what goes over it is killed. */
  readonly memoryBytes?: number;
  /** Of one core, for the whole tree; it gets no more. */
  readonly cpuPercent?: number;
  /** Of the whole tree; more are refused. */
  readonly pids?: number;
  /** Of each process; more are refused. */
  readonly openFiles?: number;
}

/** `content` absent: a file that the agent may make there, such as its result. */
export interface RunFile {
  readonly env: string;
  readonly name: string;
  readonly content?: string;
}

export interface Survivor {
  pid: number;
  name: string;
}

/** A living process of a run's tree, told apart from later ones of its pid by when it began. */
export interface ProcessRef {
  readonly pid: number;
  /** In clock ticks since boot. */
  readonly start_ticks: number;
}

/** Processes of an agent, or of a run, that the journal does not know or cannot read. */
export interface Stray {
  agentId: string;
  pids: number[];
}

/** What a run left when it was over. */
export interface RunOutcome {
  status: ExitStatus;
  /** The last lines of its output, at most 4 KiB. */
  outputTail?: string;
  /** The content of the file told as `OPENSTARRY_RESULT_FILE`, at most 1 MiB. */
  result?: string;
  /** When it ended, where the spawner knows better than "now" (it ended with no daemon alive). */
  endedAtMs?: number;
  /** What else there is to say, in words: it goes into the exit's reason. */
  note?: string;
  /** Set where the spawner knows why: `host_reboot`, `oom`, or `daemon_stop` for one that never ran. */
  cause?: Cause;
}

/** One live run. */
export interface RunHandle {
  /** JSON; enough for `adopt` to find this very process again, and no other. */
  readonly target: unknown;
  readonly pid?: number;
  readonly containment: Containment;
  /** What the operating system holds of the run's limits. Absent: nothing. */
  readonly held?: OsLimits;
  /** Resolves once, when the agent's process and its whole tree are gone. Never rejects. */
  readonly exit: Promise<RunOutcome>;
  /** Sends a signal to the agent's own process. A run that is over: nothing happens. */
  signal(signal: string): Promise<void>;
  /**
   * Ends the tree: the stop signal, up to `graceMs`, then what cannot be refused. Resolves when the
   * tree is gone, or with what survived even that; `exit` then stays unresolved until they are gone.
   * A further call may only shorten the grace.
   */
  stop(how: { signal: string; graceMs: number }): Promise<{ survivors: Survivor[] }>;
  /**
   * Gives the tree so much CPU, in percent of one core, and no more than its limit; `undefined` gives it
   * back. Resolves with how it is slowed down from now on. Absent: this spawner cannot.
   */
  throttle?(percent: number | undefined): Promise<Throttle["by"] | undefined>;
  /** Calls back when the operating system acted on a limit and the run goes on. At most one listener. */
  onLimit?(listener: (report: LimitReport) => void): void;
}

/** Which lines of a run's output to read. */
export interface LogQuery {
  stream?: "stdout" | "stderr";
  /** Only the last so many lines. */
  tail?: number;
  /** The run before the current one; beside `cursor` no other run than the cursor's. */
  previous?: boolean;
  /** Nothing printed earlier, of whichever run; milliseconds since the epoch. May answer somewhat more. */
  since?: number;
  /** Nothing printed later; milliseconds since the epoch. May answer somewhat more. */
  until?: number;
  /** Continue after the line that had this cursor: opaque, beginning with the run's id. */
  cursor?: string;
  /** Go on with what is printed later, over restarts, until `signal` aborts. */
  follow?: boolean;
  signal?: AbortSignal;
}

export interface LogLine {
  run_id: string;
  stream: "stdout" | "stderr";
  /** Bytes as the agent wrote them, less the line end. */
  bytes: Uint8Array;
  cursor: string;
  /** No line end followed yet: a long line goes on in the next of this stream. */
  partial?: boolean;
  /** What was there just before is gone: beyond `logs.keep`, or because the agent emptied its file. */
  gap?: "pruned" | "truncated";
}

/**
 * Turns a SpawnSpec into a process, or whatever plays that part, and ends it again.
 */
export interface Spawner {
  readonly name: string;
  readonly capabilities: {
    /** A later daemon can take over runs of an earlier one. */
    readonly adopt: boolean;
  };
  /**
   * Resolves what can be known before anything is journaled: the command, its exec bit and
   * interpreter, the folder, the user, the variables. Rejects with `command_not_found`,
   * `command_not_executable`, `cwd_invalid`, `user_invalid` or `env_missing`.
   */
  check(spec: SpawnSpec): Promise<void>;
  /**
   * Creates the process held at a gate, calls `commit` with what identifies it, and lets it go on
   * only after `commit` resolved. When `commit` rejects, or the daemon dies first, the agent never
   * ran. Rejects with what `check` rejects with, with `spawn_failed`, or with `SpawnDeferred` where
   * something is lacking that may come back (disk, descriptors, processes): that counts as no failure.
   */
  spawn(spec: SpawnSpec, commit: (run: RunIdentity) => Promise<void>): Promise<RunHandle>;
  /**
   * Takes over a run that an earlier daemon started. Never rejects for a run that is over: then
   * `handle` is absent and `outcome` tells what can still be known.
   */
  adopt(
    spec: AdoptSpec,
  ): Promise<{ handle: RunHandle; outcome?: never } | { handle?: never; outcome: RunOutcome }>;
  /**
   * Called once after all adoptions: ends what is left of this home's runs that are not `live` and that
   * the journal knows to be over: of the agents that are `known`, up to the newest run that is known of
   * each (ids of runs sort by age). Of other agents and of later runs the journal has lost the record, or
   * cannot read it: what lives of those may live rightly, and is left alone. Answers whose that is.
   */
  sweep?(
    live: ReadonlySet<string>,
    known: ReadonlyMap<string, string | undefined>,
  ): Promise<readonly Stray[]>;
  /** Ends all that lives of an agent that has no readable record. Resolves with what survived even that. */
  discard?(agentId: string): Promise<{ survivors: Survivor[] }>;
  /** Forgets what is kept of an agent: its output, its run folders. */
  forget?(agentId: string): Promise<void>;
  /**
   * The living processes of these runs' whole trees, the agent's own first; in one pass for all of them.
   * Runs that are over are absent. Rejects when it cannot be told. Absent: this spawner cannot tell.
   */
  processes?(runIds: readonly string[]): Promise<ReadonlyMap<string, readonly ProcessRef[]>>;
  /**
   * Runs a command beside a live run: as its user, in its folder, its environment and its containment. Its
   * output is thrown away. Resolves with how it ended; once `signal` aborts it is killed, with what it has
   * started. Rejects when it could not be run.
   */
  exec?(
    run: { readonly agentId: string; readonly runId: string },
    argv: readonly string[],
    signal: AbortSignal,
  ): Promise<ExitStatus>;
  /** Absent: this spawner keeps no output. */
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
