import { readFileSync } from "node:fs";
import pidusage, { type Status } from "pidusage";
import type { ProcessRef, SampledRun, Sampler } from "../../core/index.js";
import { ownStartTicks, type ProcessReading, readProportionalMemory, TICK_MS } from "../_shared/proc-stat.js";
import { createUsageMeter } from "../_shared/usage-meter.js";

type Statuses = Awaited<ReturnType<typeof pidusage>>;

/** How many intervals pidusage keeps a file open after it was asked about the process for the last time. */
const KEPT_INTERVALS = 3;

/**
 * Asks pidusage about all processes in one call. It keeps `/proc/PID/stat` of each of them open from one
 * call to the next, and its percentages are of its own memory of a pid, whoever had it; so they are left
 * alone, and CPU is counted from the times that it read.
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

  async function ask(pids: readonly number[], nowMs: number): Promise<Statuses> {
    for (const [pid, untilMs] of unanswered) if (untilMs <= nowMs) unanswered.delete(pid);
    const wanted = pids.filter((pid) => !unanswered.has(pid));
    if (wanted.length > openFilesLimit() / 2) {
      throw new Error(
        `pidusage would keep ${wanted.length} files open, one for each process, of the ${openFilesLimit()} that this process may have: use "sampler-procfs", or raise the limit (ulimit -n)`,
      );
    }
    // This very process as well: it tells what the clock of the others showed, and it is never gone.
    const statuses = await pidusage([process.pid, ...wanted], { maxage });
    // It looks for files to close at every half of maxage.
    for (const pid of wanted) if (!statuses[pid]) unanswered.set(pid, nowMs + 2 * maxage);
    return statuses;
  }

  return {
    name: "pidusage",
    intervalMs,
    async sample(runs: readonly SampledRun[]) {
      const beganMs = performance.now();
      const beganWallMs = Date.now();
      const pids = runs.flatMap(({ processes }) => processes.map(({ pid }) => pid));
      const statuses = await ask(pids, beganMs);
      const self = statuses[process.pid];
      if (!self) throw new Error("pidusage does not even see this process");
      const ticks = ownStartTicks() + self.elapsed / TICK_MS;
      const tookMs = performance.now() - beganMs;
      const readings = runs.map(({ run_id, processes }) => {
        const found = processes.flatMap((it) => readingOf(it, statuses[it.pid], ticks) ?? []);
        // The wall clock may be set in between.
        const afterMs = (statuses[found[0]?.pid ?? 0]?.timestamp ?? 0) - beganWallMs;
        return { run_id, atMs: beganMs + Math.min(Math.max(0, afterMs), tookMs), processes: found };
      });
      return meter.look(readings, beganMs);
    },
    proportionalMemory: readProportionalMemory,
  };
}

/** Of this very process: `ticks` is when it was read. */
function readingOf(
  { pid, start_ticks }: ProcessRef,
  status: Status | null | undefined,
  ticks: number,
): ProcessReading | undefined {
  if (!status || Math.round(ticks - status.elapsed / TICK_MS) !== start_ticks) return undefined;
  const { ppid, ctime, memory } = status;
  return { pid, ppid, start_ticks, ownMs: ctime, memoryBytes: memory };
}

let limit: number | undefined;

/** How many files this process may have open (setrlimit(2)); without end where that is not told. */
function openFilesLimit(): number {
  if (limit === undefined) {
    const limits = readFileSync("/proc/self/limits", "latin1");
    limit = Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  }
  return limit;
}
