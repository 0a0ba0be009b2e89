import {
  type Clock,
  type Logger,
  type RunHandle,
  type RunOutcome,
  type Survivor,
  sleep,
} from "../../../core/index.js";
import { createRunLimits, type RunLimitsOptions } from "../limits/run-limits.js";
import { endLeftovers } from "../tree/end-tree.js";
import { signalGroup, signalProcess } from "../tree/identity.js";
import { members, type Tree } from "../tree/tree.js";
import type { TreeWatch } from "../tree/tree-watch.js";
import { createExitWatch } from "./exit-watch.js";
import { collectOutcome, waitForStatus } from "./run-outcome.js";
import type { ProcessTarget } from "./target.js";

export interface RunHandleOptions {
  runId: string;
  target: ProcessTarget;
  clock: Clock;
  log: Logger;
  statusFile: string;
  /** Returns the last lines that the run printed. */
  outputTail(): Promise<string | undefined>;
  stop: { signal: string; graceMs: number };
  /** The groups that enforce its limits. */
  groups: RunLimitsOptions["groups"];
  /** Sees the trees of all runs at once. Absent: this tree is read by itself. */
  watch?: Pick<TreeWatch, "lookNow" | "membersOf">;
  /** Resolves when the shim has exited; absent for an adopted run, whose shim is not a child of the daemon. */
  shimExit?: Promise<void> | undefined;
}

/** A live run, with what the spawner needs to watch and to release it. */
export interface OwnedRun {
  readonly handle: RunHandle;
  readonly tree: Tree;
  /** Returns whether the agent's own process has exited; false while that cannot be checked. */
  isOver(): boolean;
  /** Stops watching. The process keeps running. */
  release(): void;
}

/** The longest grace period of processes that outlive their agent. */
const LEFTOVER_GRACE_MS = 1_000;
/** The pauses between two retries. */
const SHORTEST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;

export function createRunHandle(options: RunHandleOptions): OwnedRun {
  const { target, clock, statusFile } = options;
  const tree: Tree = {
    runId: options.runId,
    main: target,
    shim: target.shim,
    cgroup: target.cgroup,
    led: options.shimExit !== undefined,
  };
  const left = () => options.watch?.membersOf(tree) ?? members(tree);
  let stopping: Promise<unknown> | undefined;
  let graceEndsAt = Number.POSITIVE_INFINITY;
  let cancelKill = () => {};

  const { complain, persist } = createRetry(options);
  const exitWatch = createExitWatch({
    target,
    tree,
    statusFile,
    clock,
    shimExit: options.shimExit,
    onError: complain,
  });
  const limits = createRunLimits({
    runId: options.runId,
    clock,
    groups: options.groups,
    wanted: target.limits ?? {},
    otherwise: target.rlimits ?? {},
    pid: target.pid,
    pids: () => members(tree).map(({ pid }) => pid),
    over: exitWatch.isOver(),
  });
  exitWatch.start();

  const exit = exitWatch.exited.then(finish);

  async function finish(): Promise<RunOutcome> {
    const status = await persist(() => waitForStatus({ target, statusFile, clock }));
    const verdict = limits.verdict(status, stopping !== undefined);
    const { signal, graceMs } = options.stop;
    const graceLeftMs = stopping ? Math.max(0, graceEndsAt - clock.monotonic()) : graceMs;
    const how = { signal, graceMs: Math.min(graceLeftMs, LEFTOVER_GRACE_MS) };
    // No other run may start while a process of this one lives.
    await persist(async () => {
      const survivors = await endLeftovers(tree, clock, how, left);
      how.graceMs = 0;
      if (survivors.length > 0) throw new Error(`could not kill: ${nameAll(survivors)}`);
    });
    cancelKill();
    limits.remove();
    return persist(() => {
      const { outputTail, shimExit } = options;
      const source = { target, statusFile, outputTail, isOwnChild: shimExit !== undefined };
      return collectOutcome(source, status, verdict);
    });
  }

  async function stop(how: { signal: string; graceMs: number }): Promise<{ survivors: Survivor[] }> {
    const endsAt = clock.monotonic() + how.graceMs;
    // Its descendants are hard to find afterwards.
    options.watch?.lookNow();
    if (!stopping && how.graceMs > 0) {
      signalGroup(target, how.signal);
      // A stopped process (SIGSTOP) cannot handle a signal.
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
    isOver: exitWatch.isOver,
    release() {
      exitWatch.close();
      cancelKill();
      limits.release();
    },
  };
}

/** Creates the retries of a run. Only the first problem is logged: the same one may come with every retry. */
function createRetry({ runId, clock, log }: Pick<RunHandleOptions, "runId" | "clock" | "log">) {
  let hasComplained = false;

  function complain(err: unknown): void {
    if (!hasComplained) log.error({ run_id: runId, err }, "cannot verify that a run has ended; retrying");
    hasComplained = true;
  }

  return {
    complain,
    /** Retries until it succeeds: a process that cannot be checked, or hangs in the kernel, still exists. */
    async persist<T>(attempt: () => T | Promise<T>): Promise<T> {
      for (let pauseMs = SHORTEST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
        try {
          return await attempt();
        } catch (err) {
          complain(err);
          await sleep(clock, pauseMs);
        }
      }
    },
  };
}

function nameAll(survivors: readonly Survivor[]): string {
  return survivors.map(({ pid, name }) => `${name} (${pid})`).join(", ");
}
