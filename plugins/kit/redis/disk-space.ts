import { statfsSync } from "node:fs";
import { type Clock, formatSize, OpenStarryError } from "../../../core/index.js";

/** The free space on the disk of a managed server. */
export interface DiskSpace {
  /** Throws when there is not enough, with this many bytes being written already. */
  assertEnough(bytesInFlight?: number): void;
  /** Says why there is not enough; `undefined` when there is. */
  problem(): string | undefined;
}

/** More than is written between two checks. */
const RESERVE_BYTES = 16 * 2 ** 20;
/** How long the result of a check is used. */
const FRESH_MS = 10;

/**
 * Creates the check of free space before writes. A Redis server that syncs every write exits when the disk is full
 * (`flushAppendOnlyFile` in its aof.c); with the check it keeps running and can be read.
 */
export function createDiskSpace(
  folder: string,
  clock: Pick<Clock, "monotonic">,
  code: "state_unavailable" | "bus_unavailable",
): DiskSpace {
  let checkedAt = Number.NEGATIVE_INFINITY;
  let free = Number.POSITIVE_INFINITY;

  function problem(bytesInFlight = 0): string | undefined {
    if (clock.monotonic() - checkedAt >= FRESH_MS) {
      checkedAt = clock.monotonic();
      free = freeBytes(folder);
    }
    const needed = RESERVE_BYTES + bytesInFlight;
    if (free >= needed) return undefined;
    return `not enough space on the disk of ${folder}: ${formatSize(free)} free, ${formatSize(needed)} needed`;
  }

  return {
    problem: () => problem(),
    assertEnough(bytesInFlight) {
      const detail = problem(bytesInFlight);
      if (detail === undefined) return;
      throw new OpenStarryError(code, { detail, hint: "free disk space; no restart is needed" });
    },
  };
}

function freeBytes(folder: string): number {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch {
    // The folder does not exist: the server reports that itself.
    return Number.POSITIVE_INFINITY;
  }
}
