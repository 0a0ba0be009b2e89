import { existsSync, type FSWatcher, statSync, watch } from "node:fs";
import { join } from "node:path";
import type {
  Clock,
  ExitStatus,
  Logger,
  OsLimits,
  RunHandle,
  RunOutcome,
  Survivor,
} from "../../../core/index.js";
import { createRunLimits, type RunLimitsOptions } from "../limits/run-limits.js";
import { endLeftovers } from "../tree/end-tree.js";
import {
  isAlive,
  type ProcessIdentity,
  parseIdentity,
  signalGroup,
  signalProcess,
} from "../tree/identity.js";
import { members, type Tree } from "../tree/tree.js";
import type { TreeWatch } from "../tree/tree-watch.js";
import { readPlainFile, readStatusFile } from "./exit-status.js";

/** What a run is known by on disk and to the kernel: the spawner's `target`. */
export interface ProcessTarget extends ProcessIdentity {
  readonly shim?: ProcessIdentity;
  readonly cgroup?: string | undefined;
  /** What it was started with. */
  readonly limits?: OsLimits;
  /** Of that, what is held by the process itself and what descends from it (setrlimit(2)). */
  readonly rlimits?: OsLimits;
  /** The user that its template names. */
  readonly user?: string;
  /** Where its result is. */
  readonly folder: string;
}

export function parseTarget(value: unknown): ProcessTarget | undefined {
  const identity = parseIdentity(value);
  if (!identity) return undefined;
  const { shim, cgroup, user, folder, limits, rlimits } = value as Partial<ProcessTarget>;
  const parsedShim = parseIdentity(shim);
  return {
    ...identity,
    ...(parsedShim ? { shim: parsedShim } : {}),
    ...(typeof cgroup === "string" ? { cgroup } : {}),
    limits: parseLimits(limits),
    rlimits: parseLimits(rlimits),
    ...(typeof user === "string" ? { user } : {}),
    folder: typeof folder === "string" ? folder : "",
  };
}

/** The numbers that are some. */
function parseLimits(value: unknown): OsLimits {
  const limits = typeof value === "object" && value !== null ? value : {};
  return Object.fromEntries(
    Object.entries(limits).filter(([, limit]) => Number.isFinite(limit) && limit > 0),
  );
}

export interface RunHandleOptions {
  runId: string;
  target: ProcessTarget;
  clock: Clock;
  log: Logger;
  statusFile: string;
  /** The last lines that it printed. */
  outputTail(): Promise<string | undefined>;
  stop: { signal: string; graceMs: number };
  /** What holds its limits besides the process itself; absent where nothing does. */
  groups: RunLimitsOptions["groups"];
  /** Sees all runs at once. Absent: this one is looked at alone. */
  watch?: Pick<TreeWatch, "lookNow" | "membersOf">;
  /** Resolves when the shim is gone; absent for an adopted run, whose shim is nobody's child. */
  shimExit?: Promise<void>;
}

/** A live run, together with the one who lets go of it when the daemon ends. */
export interface OwnedRun {
  readonly handle: RunHandle;
  readonly tree: Tree;
  /** Whether the agent's own process is gone; not while that cannot be told. */
  isOver(): boolean;
  /** Stops watching; the process is left alone. */
  release(): void;
}

/** How often a run is looked at where no event tells of its end, since its shim is gone. */
const LOOK_MS = 500;
/** And where one should: events can be lost, and a shim can be stopped. */
const RECHECK_MS = 5_000;
/** How long the shim may take to write down what the agent's end was. */
const STATUS_PATIENCE_MS = 2_000;
/** What an agent leaves behind when it ends by itself is asked for at most so long. */
const LEFTOVER_GRACE_MS = 1_000;
const MAX_RESULT_BYTES = 2 ** 20;
/** Between two tries to end what would not end, or could not be looked at. */
const SHORTEST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;

export function createRunHandle(options: RunHandleOptions): OwnedRun {
  const { target, clock, statusFile } = options;
  const tree: Tree = {
    runId: options.runId,
    main: target,
    ...(target.shim === undefined ? {} : { shim: target.shim }),
    ...(target.cgroup === undefined ? {} : { cgroup: target.cgroup }),
    led: options.shimExit !== undefined,
  };
  const left = () => options.watch?.membersOf(tree) ?? members(tree);
  let watcher: FSWatcher | undefined;
  let cancelLook = () => {};
  let released = false;
  let mainGone: () => void = () => {};
  const main = new Promise<void>((resolve) => {
    mainGone = resolve;
  });
  let stopping: Promise<unknown> | undefined;
  let graceEndsAt = Number.POSITIVE_INFINITY;
  let cancelKill = () => {};

  let complained = false;
  /** Once a run: it goes on for as long as the trouble does. */
  function complain(err: unknown) {
    if (!complained) {
      options.log.error({ run_id: options.runId, err }, "the end of a run cannot be made sure of; going on");
    }
    complained = true;
  }

  function isOver(): boolean {
    try {
      const alive = isAlive(target);
      tree.led ||= alive;
      return !alive;
    } catch (err) {
      complain(err);
      return false;
    }
  }

  function look() {
    if (released) return;
    if (isOver()) {
      watcher?.close();
      cancelLook();
      mainGone();
      return;
    }
    cancelLook();
    cancelLook = clock.after(isToldOf() ? RECHECK_MS : LOOK_MS, look);
  }

  function isToldOf(): boolean {
    try {
      const tells = options.shimExit !== undefined || watcher !== undefined;
      return tells && target.shim !== undefined && isAlive(target.shim);
    } catch {
      return false;
    }
  }

  const limits = createRunLimits({
    runId: options.runId,
    clock,
    groups: options.groups,
    wanted: target.limits ?? {},
    otherwise: target.rlimits ?? {},
    pid: target.pid,
    pids: () => members(tree).map(({ pid }) => pid),
    over: isOver(),
  });

  if (options.shimExit !== undefined) {
    // The shim's end is only a hint: it may have been killed while the agent lives.
    void options.shimExit.then(look);
  } else {
    watcher = watchFile(statusFile, look);
  }
  look();

  const exit = main.then(finish);

  /** Tries until it does not throw: what cannot be looked at, or hangs in the kernel, is not gone. */
  async function persist<T>(attempt: () => T | Promise<T>): Promise<T> {
    for (let pauseMs = SHORTEST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
      try {
        return await attempt();
      } catch (err) {
        complain(err);
        await new Promise<void>((resolve) => void clock.after(pauseMs, resolve));
      }
    }
  }

  async function finish(): Promise<RunOutcome> {
    const status = await persist(knownStatus);
    const verdict = limits.verdict(status, stopping !== undefined);
    const { signal, graceMs } = options.stop;
    const graceLeftMs = stopping ? Math.max(0, graceEndsAt - clock.monotonic()) : graceMs;
    const how = { signal, graceMs: Math.min(graceLeftMs, LEFTOVER_GRACE_MS) };
    // Nothing else may take its place while any of it lives.
    await persist(async () => {
      const survivors = await endLeftovers(tree, clock, how, left);
      how.graceMs = 0;
      if (survivors.length > 0) throw new Error(`not to be ended: ${nameAll(survivors)}`);
    });
    cancelKill();
    limits.remove();
    return persist(() => outcomeOf(status, verdict));
  }

  /** The status file, given the shim a moment to write it. */
  async function knownStatus(): Promise<ExitStatus | undefined> {
    const end = clock.monotonic() + STATUS_PATIENCE_MS;
    // A shim that somebody has stopped cannot write.
    if (target.shim) signalProcess(target.shim, "SIGCONT");
    for (;;) {
      const status = readStatusFile(statusFile);
      const mayCome = target.shim !== undefined && isAlive(target.shim) && clock.monotonic() < end;
      if (status || !mayCome) return status ?? readStatusFile(statusFile);
      await new Promise<void>((resolve) => void clock.after(5, resolve));
    }
  }

  async function outcomeOf(
    status: ExitStatus | undefined,
    verdict: Pick<RunOutcome, "cause" | "note">,
  ): Promise<RunOutcome> {
    const outcome: RunOutcome = { status: status ?? { kind: "lost" }, ...verdict };
    // It was not the agent's doing.
    if (status?.kind === "spawn_failed") outcome.cause = "daemon_stop";
    const tail = await options.outputTail();
    if (tail) outcome.outputTail = tail;
    const result = readPlainFile(join(target.folder, "result"), MAX_RESULT_BYTES);
    if (result === "too large")
      outcome.note = [verdict.note, "its result was larger than 1 MiB and was not kept"]
        .filter(Boolean)
        .join("; ");
    else if (result && result.length > 0) outcome.result = result.toString("utf8");
    const written = options.shimExit === undefined && statSync(statusFile, { throwIfNoEntry: false });
    if (status && written) outcome.endedAtMs = written.mtimeMs;
    return outcome;
  }

  async function stop(how: { signal: string; graceMs: number }): Promise<{ survivors: Survivor[] }> {
    const endsAt = clock.monotonic() + how.graceMs;
    // What descends from it is hard to see afterwards.
    options.watch?.lookNow();
    if (!stopping && how.graceMs > 0) {
      signalGroup(target, how.signal);
      // What is stopped (SIGSTOP) cannot act on a signal.
      signalGroup(target, "SIGCONT");
    }
    if (endsAt < graceEndsAt) {
      graceEndsAt = endsAt;
      cancelKill();
      const survived = new Promise<Survivor[]>((resolve) => {
        const kill = () => persist(() => endLeftovers(tree, clock, { ...how, graceMs: 0 }, left));
        cancelKill = clock.after(how.graceMs, () => void kill().then(resolve));
      });
      stopping = survived;
      const over = exit.then((): Survivor[] => []);
      return { survivors: await Promise.race([over, survived]) };
    }
    await exit;
    return { survivors: [] };
  }

  return {
    handle: {
      target,
      pid: target.pid,
      containment: target.cgroup === undefined ? "best_effort" : "full",
      exit,
      held: limits.held,
      throttle: limits.throttle,
      onLimit: limits.onLimit,
      signal: async (name) => void signalProcess(target, name),
      stop,
    },
    tree,
    isOver,
    release() {
      released = true;
      watcher?.close();
      cancelLook();
      cancelKill();
      limits.release();
    },
  };
}

function nameAll(survivors: readonly Survivor[]): string {
  return survivors.map(({ pid, name }) => `${name} (${pid})`).join(", ");
}

function watchFile(path: string, changed: () => void): FSWatcher | undefined {
  if (!existsSync(path)) return undefined;
  try {
    const watcher = watch(path, { persistent: false }, changed);
    watcher.on("error", () => watcher.close());
    return watcher;
  } catch {
    // Out of watches: the regular look finds out as well, only later.
    return undefined;
  }
}
