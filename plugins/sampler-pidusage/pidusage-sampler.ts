import { readFileSync } from "node:fs";
import pidusage from "pidusage";
import type { ProcessRef, SampledRun, Sampler } from "../../core/index.js";
import { ownStartTicks, type ProcessReading, readProportionalMemory, TICK_MS } from "../kit/proc-stat.js";
import { createUsageMeter } from "../kit/usage-meter.js";

/** A process as pidusage saw it, and when, by `performance.now()`. */
interface TimedReading extends ProcessReading {
  readonly atMs: number;
}

/** How many intervals pidusage keeps a file open after it was asked about the process for the last time. */
const KEPT_INTERVALS = 3;
/**
 * How many processes it is asked about in one call: it opens and reads the files of all of them at once, in
 * the few threads in which everybody else's files are read too.
 */
const BATCH = 100;

/**
 * Asks pidusage about all processes. It keeps `/proc/PID/stat` of each of them open from one call to the
 * next, and its percentages are of its own memory of a pid, whoever had it; so they are left alone, and CPU
 * is counted from the times that it read.
 * Where that would take more than half of the files that this process may open, `sample` rejects.
 */
export function createPidusageSampler(intervalMs: number): Sampler {
  const meter = createUsageMeter();
  const maxage = KEPT_INTERVALS * intervalMs;
  /**
   * Pids that are left out until then: pidusage had no answer. It may hold the file of a process that is
   * gone while another has its pid, and would hold it for as long as it is asked.
   */
  const unanswered = new Map<number, number>();

  async function readAll(processes: readonly ProcessRef[]): Promise<Map<number, TimedReading>> {
    const nowMs = performance.now();
    for (const [pid, untilMs] of unanswered) if (untilMs <= nowMs) unanswered.delete(pid);
    const pids = processes.map(({ pid }) => pid).filter((pid) => !unanswered.has(pid));
    refuseTooMany(pids.length);
    const found = new Map<number, TimedReading>();
    for (let at = 0; at < pids.length; at += BATCH) {
      for (const it of await readBatch(pids.slice(at, at + BATCH))) found.set(it.pid, it);
    }
    // It looks for files to close at every half of maxage.
    for (const pid of pids) if (!found.has(pid)) unanswered.set(pid, nowMs + 2 * maxage);
    return found;
  }

  async function readBatch(pids: readonly number[]): Promise<TimedReading[]> {
    const [beganMs, beganWallMs] = [performance.now(), Date.now()];
    // This very process as well: it is never gone, and tells from when the ages of the others are.
    const { [process.pid]: self, ...statuses } = await pidusage([process.pid, ...pids], { maxage });
    if (!self) throw new Error("pidusage does not even see this process");
    const tookMs = performance.now() - beganMs;
    const nowTicks = ownStartTicks() + self.elapsed / TICK_MS;
    return Object.values(statuses).flatMap((it) => {
      if (!it) return [];
      // The wall clock may be set in between.
      const afterMs = Math.min(Math.max(0, it.timestamp - beganWallMs), tookMs);
      const start_ticks = Math.round(nowTicks - it.elapsed / TICK_MS);
      const { pid, ppid, ctime: ownMs, memory: memoryBytes } = it;
      return { pid, ppid, start_ticks, ownMs, memoryBytes, atMs: beganMs + afterMs };
    });
  }

  return {
    name: "pidusage",
    intervalMs,
    async sample(runs: readonly SampledRun[]) {
      const beganMs = performance.now();
      const found = await readAll(runs.flatMap(({ processes }) => processes));
      const readings = runs.map(({ run_id, processes }) => {
        const mine = processes.flatMap(({ pid, start_ticks }) => {
          const reading = found.get(pid);
          return reading?.start_ticks === start_ticks ? reading : [];
        });
        return { run_id, atMs: mine[0]?.atMs ?? beganMs, processes: mine };
      });
      return meter.look(readings, beganMs);
    },
    proportionalMemory: readProportionalMemory,
  };
}

function refuseTooMany(processes: number): void {
  const limit = openFilesLimit();
  if (processes <= limit / 2) return;
  throw new Error(
    `pidusage would keep ${processes} files open, one for each process, of the ${limit} that the daemon may have: use "sampler-procfs", or raise the limit (ulimit -n)`,
  );
}

let limitOnce: number | undefined;

/** How many files this process may have open (setrlimit(2)). */
function openFilesLimit(): number {
  const read = () => /^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1];
  limitOnce ??= Number(read() ?? Number.POSITIVE_INFINITY);
  return limitOnce;
}
