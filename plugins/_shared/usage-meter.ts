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
  readonly processes: ReadonlyMap<number, KnownProcess>;
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
    const { processes, addedMs } = count(run.processes, before?.processes ?? new Map(), isNew);
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
  known: ReadonlyMap<number, KnownProcess>,
  isNew: (it: ProcessReading) => boolean,
): { processes: Map<number, KnownProcess>; addedMs: number } {
  const inherited = inheritance(readings, known);
  const processes = new Map<number, KnownProcess>();
  let addedMs = 0;
  for (const it of readings) {
    const before = known.get(it.pid);
    let countedMs = inherited.get(it.pid) ?? 0;
    if (before?.start_ticks === it.start_ticks) {
      countedMs += before.countedMs;
      const endedMs = (it.endedMs ?? 0) - (before.endedMs ?? 0);
      const countedBefore = Math.min(endedMs, countedMs);
      countedMs -= countedBefore;
      addedMs += it.ownMs - before.ownMs + endedMs - countedBefore;
    } else if (isNew(it)) addedMs += usedMs(it);
    processes.set(it.pid, { ...it, countedMs });
  }
  return { processes, addedMs: Math.max(0, addedMs) };
}

/**
 * The CPU time of known processes that have ended, by the pid of the nearest one above that lives on. When
 * that one has waited for them the kernel adds it to its `endedMs`; but it was counted already.
 */
function inheritance(
  readings: readonly ProcessReading[],
  known: ReadonlyMap<number, KnownProcess>,
): Map<number, number> {
  const living = new Map(readings.map((it) => [it.pid, it.start_ticks]));
  const livesOn = (it: KnownProcess) => living.get(it.pid) === it.start_ticks;
  const inherited = new Map<number, number>();
  for (const it of known.values()) {
    if (livesOn(it)) continue;
    let heir = known.get(it.ppid);
    for (let steps = 0; heir && !livesOn(heir) && steps < known.size; steps++) heir = known.get(heir.ppid);
    if (!heir || !livesOn(heir)) continue;
    inherited.set(heir.pid, (inherited.get(heir.pid) ?? 0) + usedMs(it) + it.countedMs);
  }
  return inherited;
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
