import { formatDuration, formatSize } from "../../core/index.js";
import type { MemoryReading } from "./memory-reading.js";

/** Shares in percent, times in milliseconds. */
export interface PressureOptions {
  waitSome: number;
  waitAvailable: number;
  stopFull: number;
  stopAvailable: number;
  psiCountsBelow: number;
  stopAfterMs: number;
  calmMs: number;
}

/** Tells from readings whether starts wait, and whether somebody has to go. Whoever asks brings the time. */
export interface Pressure {
  see(reading: MemoryReading, nowMs: number): void;
  /** Why starts wait, in words: the same ones as long as they do. */
  readonly wait: string | undefined;
  /** Why somebody has to go, in words: the pressure has been so high for so long. */
  readonly stop: string | undefined;
  /** Something was done about it: from now on it has to be too high for as long again. */
  acted(): void;
}

export function createPressure(options: PressureOptions): Pressure {
  let wait: string | undefined;
  let stop: string | undefined;
  let tooHighSinceMs: number | undefined;
  let calmSinceMs: number | undefined;

  /** The first that is over its threshold, in words. */
  function over(
    { psi, available }: MemoryReading,
    level: { name: "wait" | "stop"; psi: "some" | "full"; threshold: number; floor: number },
  ): string | undefined {
    const share =
      available && `${formatSize(available.bytes)} (${round(available.percent)}%) of memory is available`;
    if (available && available.percent < level.floor)
      return `${share}, less than ${level.floor}% (${level.name}_available)`;
    // One run at its own memory_max stalls, and by that raises the figures of a machine that has plenty.
    const counts = (available?.percent ?? 0) < options.psiCountsBelow;
    const stalled = psi?.[level.psi] ?? 0;
    if (!counts || !psi || stalled < level.threshold) return undefined;
    const words = `PSI ${level.psi} is ${round(stalled)}%, from ${level.threshold}% on (${level.name}_${level.psi})`;
    return share ? `${words}; ${share}` : words;
  }

  return {
    see(reading, nowMs) {
      const { waitSome, waitAvailable, stopFull, stopAvailable, stopAfterMs, calmMs } = options;
      const tooHigh = over(reading, { name: "stop", psi: "full", threshold: stopFull, floor: stopAvailable });
      const high =
        tooHigh ?? over(reading, { name: "wait", psi: "some", threshold: waitSome, floor: waitAvailable });
      calmSinceMs = high === undefined ? (calmSinceMs ?? nowMs) : undefined;
      if (high !== undefined) wait ??= `memory pressure: ${high}`;
      else if (nowMs - (calmSinceMs ?? nowMs) >= calmMs) wait = undefined;

      tooHighSinceMs = tooHigh === undefined ? undefined : (tooHighSinceMs ?? nowMs);
      const lastedMs = nowMs - (tooHighSinceMs ?? nowMs);
      stop =
        tooHigh !== undefined && lastedMs >= stopAfterMs
          ? `memory pressure for ${formatDuration(lastedMs)}: ${tooHigh}`
          : undefined;
    },
    get wait() {
      return wait;
    },
    get stop() {
      return stop;
    },
    acted() {
      tooHighSinceMs = undefined;
      stop = undefined;
    },
  };
}

const round = (percent: number) => Number(percent.toFixed(1));
