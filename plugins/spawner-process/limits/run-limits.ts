import {
  type Clock,
  type ExitStatus,
  formatSize,
  type LimitReport,
  type OsLimits,
  type RunHandle,
  type RunOutcome,
} from "../../../core/index.js";
import type { LimitGroups } from "./limits.js";
import { setNiceness } from "./niceness.js";

export interface RunLimitsOptions {
  runId: string;
  clock: Clock;
  groups: LimitGroups | undefined;
  /** What the run was started with. */
  wanted: OsLimits;
  /** Of the limits, those that are held by other means than groups. */
  otherwise: OsLimits;
  /** The agent's own process. */
  pid: number;
  /** The living processes of its tree; throws when they cannot be told. */
  pids: () => readonly number[];
  /** The agent ended before this daemon took it over: all that the kernel ever did belongs to its end. */
  over: boolean;
}

/** What the operating system does about the limits of one run, and what it has done. */
export interface RunLimits extends Required<Pick<RunHandle, "held" | "throttle" | "onLimit">> {
  /** What the kernel had to do with the end of the run. Asked while its groups are still there. */
  verdict(status: ExitStatus | undefined, wasAsked: boolean): Pick<RunOutcome, "cause" | "note">;
  /** Removes what it made for the run. */
  remove(): void;
  /** Stops watching. */
  release(): void;
}

/** How often it is looked whether the kernel has acted. */
const LOOK_MS = 1_000;

export function createRunLimits(options: RunLimitsOptions): RunLimits {
  const { runId, groups, wanted, clock } = options;
  const held: OsLimits = { ...groups?.holding(runId, wanted, options.pid), ...options.otherwise };
  let cancel = () => {};
  let done = false;
  let listener: (report: LimitReport) => void = () => {};
  const kills = createCounter(() => groups?.count(runId, "oomKills") ?? 0, options.over);
  const refusals = createCounter(() => groups?.count(runId, "refusedForks") ?? 0, options.over);

  function look() {
    if (done) return;
    cancel = clock.after(LOOK_MS, look);
    const killed = kills.settled();
    if (killed > 0) report("memory_max", held.memoryBytes, "kill", killWords(killed));
    // One refusal is seldom alone: the first of them is told.
    if (refusals.settled() > 0 && !refusals.told) {
      refusals.told = true;
      report("pids_max", held.pids, "refuse", `more than ${held.pids} processes and threads were refused`);
    }
  }

  function report(
    limit: LimitReport["limit"],
    value: number | undefined,
    action: LimitReport["action"],
    reason: string,
  ) {
    if (value !== undefined) listener({ limit, value, action, reason });
  }

  function finish() {
    done = true;
    cancel();
  }

  function killWords(count: number): string {
    const peak = groups?.peakBytes(runId);
    const most = peak === undefined ? "" : `, at most ${formatSize(peak)} were in use`;
    const why =
      held.memoryBytes === undefined
        ? "the machine had no memory left"
        : `memory_max ${formatSize(held.memoryBytes)}${most}`;
    return `the kernel killed ${count} of its processes for want of memory (${why})`;
  }

  return {
    held,
    async throttle(percent) {
      const limit = held.cpuPercent;
      const wish = percent === undefined ? limit : Math.min(percent, limit ?? percent);
      if (groups?.setCpu(runId, wish, options.pids)) return percent === undefined ? undefined : "quota";
      return setNiceness(options.pids(), percent !== undefined) ? "nice" : undefined;
    },
    onLimit(given) {
      listener = given;
      if (held.memoryBytes !== undefined || held.pids !== undefined) look();
    },
    verdict(status, wasAsked) {
      finish();
      const killed = kills.fresh();
      if (killed === 0) return {};
      const bySigkill = status?.kind === "signaled" && status.signal === "SIGKILL";
      return { note: killWords(killed), ...(bySigkill && !wasAsked ? { cause: "oom" } : {}) };
    },
    remove: () => groups?.remove(runId),
    release: finish,
  };
}

/**
 * A number that the kernel only raises; where it cannot be read it is 0. What is new at one look is told at the next: if it ended the
 * agent, it is no news of a living one but the reason of its end.
 */
function createCounter(read: () => number, fromZero: boolean) {
  let told = fromZero ? 0 : read();
  let seen = told;
  const highest = () => Math.max(seen, read());
  return {
    told: false,
    /** How much of the rise was seen at the last look already; from then on it is told. */
    settled(): number {
      const rise = seen - told;
      told = seen;
      seen = highest();
      return rise;
    },
    /** All that was not told. */
    fresh: () => highest() - told,
  };
}
