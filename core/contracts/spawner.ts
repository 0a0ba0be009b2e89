import { defineSlot } from "../slots.js";
import type { Cause, Containment, ExitStatus } from "./agent.js";

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
  readonly stop: { readonly signal: string; readonly graceMs: number };
  readonly logs: {
    /** How many older runs' output is kept. */
    readonly keep: number;
    /** Both streams in one file. */
    readonly merge: boolean;
  };
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
}

/** Which lines of a run's output to read. */
export interface LogQuery {
  stream?: "stdout" | "stderr";
  /** Only the last so many lines. */
  tail?: number;
  /** The run before the current one. */
  previous?: boolean;
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
   * ran. Rejects with what `check` rejects with, or `spawn_failed`.
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
   * Called once after all adoptions: ends what is left of this home's runs that are not `live`. Agents
   * that are `unknown` have a record that cannot be read: theirs may live rightly, and are left alone.
   */
  sweep?(live: ReadonlySet<string>, unknown: ReadonlySet<string>): Promise<void>;
  /** Forgets what is kept of an agent: its output, its run folders. */
  forget?(agentId: string): Promise<void>;
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
}

export interface AdoptSpec {
  readonly agentId: string;
  readonly runId: string;
  readonly target: unknown;
  readonly stop: { readonly signal: string; readonly graceMs: number };
}

export const spawner = defineSlot<Spawner, "many">("spawner", "many");
