import type { ProcessRef, SampledRun, Sampler } from "../../core/index.js";
import { readKernelBytes } from "../kit/kernel-file.js";
import { type ProcessReading, parseProcessStat, readProportionalMemory } from "../kit/proc-stat.js";
import { createUsageMeter, type RunReading } from "../kit/usage-meter.js";

/** After so long the event loop has its turn, however many processes there are. */
const SLICE_MS = 5;
/** No such process, or one that is hidden from this user (proc(5), `hidepid`). */
const NOT_TO_BE_SEEN: readonly string[] = ["ENOENT", "ESRCH", "EACCES", "EPERM"];

/**
 * Reads `/proc/PID/stat` by plain calls, which takes a fraction of the CPU time that reading in the
 * background does.
 */
export function createProcfsSampler(intervalMs: number): Sampler {
  const meter = createUsageMeter();
  return {
    name: "procfs",
    intervalMs,
    async sample(runs: readonly SampledRun[]) {
      const beganMs = performance.now();
      const readings: RunReading[] = [];
      let sliceEndsMs = beganMs + SLICE_MS;
      for (const { run_id, processes } of runs) {
        const atMs = performance.now();
        readings.push({ run_id, atMs, processes: processes.flatMap((it) => read(it) ?? []) });
        if (performance.now() < sliceEndsMs) continue;
        await new Promise((resolve) => setImmediate(resolve));
        sliceEndsMs = performance.now() + SLICE_MS;
      }
      return meter.look(readings, beganMs);
    },
    proportionalMemory: readProportionalMemory,
  };
}

/** `undefined` when it is gone, or when another has its pid. */
function read({ pid, start_ticks }: ProcessRef): ProcessReading | undefined {
  try {
    const reading = parseProcessStat(pid, readKernelBytes(`/proc/${pid}/stat`));
    return reading.start_ticks === start_ticks ? reading : undefined;
  } catch (error) {
    if (NOT_TO_BE_SEEN.includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
}
