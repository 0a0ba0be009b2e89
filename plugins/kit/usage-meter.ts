import type { ResourceFigures } from "../../core/index.js";
import { ownStartTicks, type ProcessReading, TICK_MS } from "./proc-stat.js";

/** The processes of one run, as they were read. Times are by `performance.now()`. */
export interface RunReading {
  readonly run_id: string;
  /** The agent's own first. */
  readonly processes: readonly ProcessReading[];
  readonly atMs: number;
}

/**
 * Turns readings of processes into the figures of runs. CPU is counted from what each process has added
 * since the look before, told by pid and start time: a pid that is used again begins anew, and a process
 * that ends takes nothing away.
 */
export interface UsageMeter {
  /**
   * What all runs use, by run, from a look at them that began at `beganMs`. Runs that are not among them
   * are forgotten. Missing are those that were not in the look before and are older than it: how much of
   * their time is of now cannot be told until the next.
   */
  look(runs: readonly RunReading[], beganMs: number): Map<string, ResourceFigures>;
}

interface KnownProcess extends ProcessReading {
  /** CPU time counted already, of processes below it that have ended: it will turn up in its `endedMs`. */
  readonly countedMs: number;
}

interface KnownRun {
  readonly processes: readonly KnownProcess[];
  readonly atMs: number;
  readonly cpuMs: number;
  /** Absent: not known yet. */
  readonly percent?: number;
}

/** CPU time comes in ticks of 10 ms: over less than this, a percentage would be noise. */
const SHORTEST_WINDOW_MS = 200;
/** What begins while a look begins may be missed by it; and Node's clock starts a little after its process. */
const SLACK_MS = 250;

export function createUsageMeter(): UsageMeter {
  let known = new Map<string, KnownRun>();
  let lastLookMs = Number.POSITIVE_INFINITY;

  const isNew = (it: ProcessReading) => startedAtMs(it) >= lastLookMs - SLACK_MS;

  /** How much time its CPU time is of. `undefined`: not known. */
  function windowOf({ processes: [main], atMs }: RunReading, before: KnownRun | undefined) {
    if (before) return atMs - before.atMs;
    if (!main || !isNew(main)) return undefined;
    const begunMs = startedAtMs(main);
    // The machine was asleep: the ticks went on, and Node's clock did not.
    return atMs - (begunMs < atMs ? begunMs : lastLookMs);
  }

  function next(run: RunReading, before: KnownRun | undefined): KnownRun | undefined {
    const windowMs = windowOf(run, before);
    if (windowMs !== undefined && windowMs < SHORTEST_WINDOW_MS) return before;
    const { processes, addedMs } = count(run.processes, before?.processes ?? [], isNew);
    return {
      processes,
      atMs: run.atMs,
      cpuMs: before ? before.cpuMs + addedMs : sum(run.processes, usedMs),
      ...(windowMs === undefined ? {} : { percent: (addedMs / windowMs) * 100 }),
    };
  }

  return {
    look(runs, beganMs) {
      const seen = new Map<string, KnownRun>();
      const figures = new Map<string, ResourceFigures>();
      for (const run of runs) {
        const now = next(run, known.get(run.run_id));
        if (!now || run.processes.length === 0) continue;
        seen.set(run.run_id, now);
        if (now.percent === undefined) continue;
        figures.set(run.run_id, {
          cpu_percent: Math.round(now.percent * 10) / 10,
          cpu_ms: Math.round(now.cpuMs),
          memory_bytes: sum(run.processes, ({ memoryBytes }) => memoryBytes),
          processes: run.processes.length,
        });
      }
      known = seen;
      lastLookMs = beganMs;
      return figures;
    },
  };
}

/** What these processes have used since they were known, and what is to be known of them next time. */
function count(
  readings: readonly ProcessReading[],
  known: readonly KnownProcess[],
  isNew: (it: ProcessReading) => boolean,
): { processes: KnownProcess[]; addedMs: number } {
  const knownOf = byPid(known);
  const inherited = inheritance(byPid(readings), known, knownOf);
  let addedMs = 0;
  const processes = readings.map((it) => {
    const before = knownOf(it.pid);
    let countedMs = inherited?.get(it.pid) ?? 0;
    if (before?.start_ticks === it.start_ticks) {
      countedMs += before.countedMs;
      const endedMs = (it.endedMs ?? 0) - (before.endedMs ?? 0);
      const countedBefore = Math.min(endedMs, countedMs);
      countedMs -= countedBefore;
      addedMs += it.ownMs - before.ownMs + endedMs - countedBefore;
    } else if (isNew(it)) addedMs += usedMs(it);
    return { ...it, countedMs };
  });
  return { processes, addedMs: Math.max(0, addedMs) };
}

/**
 * The CPU time of known processes that have ended, by the pid of the nearest one above that lives on. When
 * that one has waited for them the kernel adds it to its `endedMs`; but it was counted already.
 */
function inheritance(
  livingOf: (pid: number) => ProcessReading | undefined,
  known: readonly KnownProcess[],
  knownOf: (pid: number) => KnownProcess | undefined,
): Map<number, number> | undefined {
  const livesOn = (it: KnownProcess) => livingOf(it.pid)?.start_ticks === it.start_ticks;
  if (known.every(livesOn)) return undefined;
  const inherited = new Map<number, number>();
  for (const it of known) {
    if (livesOn(it)) continue;
    let heir = knownOf(it.ppid);
    for (let steps = 0; heir && !livesOn(heir) && steps < known.length; steps++) heir = knownOf(heir.ppid);
    if (!heir || !livesOn(heir)) continue;
    inherited.set(heir.pid, (inherited.get(heir.pid) ?? 0) + usedMs(it) + it.countedMs);
  }
  return inherited;
}

/** More than this are looked up in a map; most runs are of a process or two, and make none at each tick. */
const FEW = 8;

function byPid<T extends ProcessReading>(processes: readonly T[]): (pid: number) => T | undefined {
  if (processes.length <= FEW) return (pid) => processes.find((it) => it.pid === pid);
  const map = new Map(processes.map((it) => [it.pid, it]));
  return (pid) => map.get(pid);
}

function usedMs({ ownMs, endedMs = 0 }: ProcessReading): number {
  return ownMs + endedMs;
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}

/** When a process began, by `performance.now()`. */
function startedAtMs({ start_ticks }: ProcessReading): number {
  return (start_ticks - ownStartTicks()) * TICK_MS;
}
