import { statfsSync } from "node:fs";
import { type Clock, formatSize, OpenStarryError } from "../../../core/index.js";

/** Whether there is room on a disk for what is about to be written. */
export interface DiskRoom {
  /** Throws the error while there is not, with so many bytes on their way already. */
  check(underWayBytes?: number): void;
  /** Why there is none, in words. */
  problem(): string | undefined;
}

/** Above what is written between two looks. */
const RESERVE_BYTES = 16 * 2 ** 20;
/** A look is good for so long. */
const LOOK_MS = 10;

/**
 * A Redis server that syncs every write ends when the disk is full (`flushAppendOnlyFile` in its aof.c). Who writes
 * to one of our own therefore looks first: the server stays up, and can be read.
 */
export function createDiskRoom(
  folder: string,
  clock: Pick<Clock, "monotonic">,
  code: "state_unavailable" | "bus_unavailable",
): DiskRoom {
  let lookedAt = Number.NEGATIVE_INFINITY;
  let free = Number.POSITIVE_INFINITY;

  function problem(underWayBytes = 0): string | undefined {
    if (clock.monotonic() - lookedAt >= LOOK_MS) {
      lookedAt = clock.monotonic();
      free = freeBytes(folder);
    }
    const needed = RESERVE_BYTES + underWayBytes;
    if (free >= needed) return undefined;
    return `there is no room on the disk of ${folder}: ${formatSize(free)} are left, ${formatSize(needed)} are needed`;
  }

  return {
    problem: () => problem(),
    check(underWayBytes) {
      const detail = problem(underWayBytes);
      if (detail === undefined) return;
      throw new OpenStarryError(code, { detail, hint: "free disk space; nothing has to be restarted" });
    },
  };
}

function freeBytes(folder: string): number {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch {
    // Not there yet, or no more: the server will tell.
    return Number.POSITIVE_INFINITY;
  }
}
