import {
  type AgentLimits,
  formatDuration,
  formatSize,
  type Limit,
  type LimitName,
  type LimitReport,
  type ResourceSample,
} from "../../core/index.js";

export interface JudgeOptions {
  /** CPU counts as over its limit when it is on average over so long. */
  cpuWindowMs: number;
  /** In percent of one core: who uses no more does nothing. */
  idleCpuPercent: number;
}

/** Looks at the figures of one run, and says what is over its limit. Pure: whoever asks brings the time. */
export interface RunJudge {
  /** What became too much by this sample. */
  see(sample: ResourceSample, nowMs: number): LimitReport[];
  /** A sign of life that takes no CPU. */
  active(nowMs: number): void;
  /** For how long it has done nothing. */
  idleMs(nowMs: number): number;
  /** What is to be done when it has been idle, or has run, for as long as it may. */
  timeIsUp(limit: "idle_max" | "run_time_max", ms: number): LimitReport | undefined;
}

/** What was told is told again only after it fell below this part of the limit. */
export const REARMED_BELOW = 0.9;

export function createRunJudge(limits: AgentLimits, options: JudgeOptions, nowMs: number): RunJudge {
  const told = new Set<LimitName>();
  const cpu = createAverage(options.cpuWindowMs);
  let activeAtMs = nowMs;
  let before: { atMs: number; cpuMs: number } | undefined;

  /** Over: reports once, until it fell well below. What the kernel holds is the kernel's. */
  function check(
    name: "memory_max" | "cpu_max" | "pids_max",
    measured: number | undefined,
    words: (limit: Limit, measured: number) => string,
  ): LimitReport[] {
    const limit = limits[name];
    if (limit?.held_by !== "polling" || measured === undefined) return [];
    if (measured < limit.value * REARMED_BELOW) told.delete(name);
    if (measured <= limit.value || told.has(name)) return [];
    told.add(name);
    return [reportOf(name, limit, measured, words(limit, measured))];
  }

  function active(atMs: number) {
    activeAtMs = atMs;
    told.delete("idle_max");
  }

  function lookForWork({ cpu_ms: cpuMs }: ResourceSample, atMs: number) {
    const elapsedMs = before ? atMs - before.atMs : 0;
    const usedMs = before ? cpuMs - before.cpuMs : 0;
    if (elapsedMs > 0 && (usedMs / elapsedMs) * 100 > options.idleCpuPercent) active(atMs);
    before = { atMs, cpuMs };
  }

  return {
    see(sample, atMs) {
      lookForWork(sample, atMs);
      return [
        ...check(
          "memory_max",
          sample.memory_bytes,
          ({ value }, bytes) => `memory ${formatSize(bytes)} over memory_max ${formatSize(value)}`,
        ),
        ...check(
          "pids_max",
          sample.processes,
          ({ value }, count) => `${count} processes over pids_max ${value}`,
        ),
        ...check(
          "cpu_max",
          cpu.add(sample.cpu_percent, atMs),
          ({ value }, percent) =>
            `CPU ${Math.round(percent)}% over cpu_max ${value}%, on average over ${formatDuration(options.cpuWindowMs)}`,
        ),
      ];
    },
    active,
    idleMs: (atMs) => atMs - activeAtMs,
    timeIsUp(name, ms) {
      const limit = limits[name];
      if (!limit || ms < limit.value * 1_000 || told.has(name)) return undefined;
      told.add(name);
      const what = name === "idle_max" ? "idle" : "running";
      const words = `${what} for ${formatDuration(ms)}, ${name} ${formatDuration(limit.value * 1_000)}`;
      return reportOf(name, limit, ms / 1_000, words);
    },
  };
}

function reportOf(
  limit: LimitName,
  { value, on_exceed }: Limit,
  measured: number,
  reason: string,
): LimitReport {
  return { limit, value, measured, action: on_exceed ?? "warn", reason };
}

/** The mean of what was seen within a window; none before the window is full. */
function createAverage(windowMs: number) {
  let seen: { atMs: number; value: number }[] = [];
  let sinceMs: number | undefined;
  return {
    add(value: number, atMs: number): number | undefined {
      sinceMs ??= atMs;
      seen = [...seen.filter((it) => it.atMs > atMs - windowMs), { atMs, value }];
      if (atMs - sinceMs < windowMs) return undefined;
      return seen.reduce((sum, it) => sum + it.value, 0) / seen.length;
    },
  };
}
