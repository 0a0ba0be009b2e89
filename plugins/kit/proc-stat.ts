import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";

/** What proc(5) `stat` tells of one process at one moment. */
export interface ProcessReading {
  readonly pid: number;
  readonly ppid: number;
  /** In clock ticks since boot: with the pid it names one process for ever. */
  readonly start_ticks: number;
  /** CPU time of its own, all threads, user and system. */
  readonly ownMs: number;
  /** CPU time of descendants that have ended and were waited for. Absent: not known. */
  readonly endedMs?: number;
  /** Resident memory. */
  readonly memoryBytes: number;
}

/** The units that `stat` counts in, from the auxiliary vector (getauxval(3)); what nearly all have, else. */
const { ticksPerSecond, pageBytes } = readUnits();

function readUnits(): { ticksPerSecond: number; pageBytes: number } {
  const units = { ticksPerSecond: 100, pageBytes: 4_096 };
  try {
    const words = new BigUint64Array(new Uint8Array(readFileSync("/proc/self/auxv")).buffer);
    for (let at = 0; at + 1 < words.length; at += 2) {
      if (words[at] === 6n) units.pageBytes = Number(words[at + 1]);
      if (words[at] === 17n) units.ticksPerSecond = Number(words[at + 1]);
    }
  } catch {
    // Not for this user, or of a 32-bit system.
  }
  return units;
}

/** How long one clock tick is. */
export const TICK_MS = 1_000 / ticksPerSecond;

const [SPACE, CLOSE, ZERO, NINE] = [0x20, 0x29, 0x30, 0x39];
/** The numbers behind the name that are told of: their places in proc(5), less 3. */
const [PPID, UTIME, STIME, CUTIME, CSTIME, START, RSS] = [1, 11, 12, 13, 14, 19, 21];
const numbers = new Float64Array(RSS + 1);

/** The content of the `/proc/PID/stat` of this pid. No text is made of it: there are thousands of them in a second. */
export function parseProcessStat(pid: number, bytes: Uint8Array): ProcessReading {
  // The name is whatever the process chose, brackets included: what follows the last one is fixed.
  let at = bytes.lastIndexOf(CLOSE) + 2;
  for (let index = 0; index <= RSS; index++) {
    let number = 0;
    for (; at < bytes.length; at++) {
      const byte = bytes[at] ?? SPACE;
      if (byte === SPACE) break;
      // A letter, or a sign, in fields that are not told of.
      if (byte >= ZERO && byte <= NINE) number = number * 10 + (byte - ZERO);
    }
    at += 1;
    numbers[index] = number;
  }
  const tell = (index: number) => numbers[index] ?? 0;
  return {
    pid,
    ppid: tell(PPID),
    start_ticks: tell(START),
    ownMs: (tell(UTIME) + tell(STIME)) * TICK_MS,
    endedMs: (tell(CUTIME) + tell(CSTIME)) * TICK_MS,
    memoryBytes: tell(RSS) * pageBytes,
  };
}

let selfStartTicks: number | undefined;

/** When this process began, in clock ticks since boot. */
export function ownStartTicks(): number {
  selfStartTicks ??= parseProcessStat(process.pid, readFileSync("/proc/self/stat")).start_ticks;
  return selfStartTicks;
}

/**
 * The proportional set size of these processes together (proc(5), `smaps_rollup`), in bytes; those that
 * ended meanwhile are left out. `undefined` when one may not be read, or none is left.
 */
export async function readProportionalMemory(
  processes: readonly { readonly pid: number; readonly start_ticks: number }[],
): Promise<number | undefined> {
  let kibibytes: number | undefined;
  for (const { pid, start_ticks } of processes) {
    try {
      const rollup = await readFile(`/proc/${pid}/smaps_rollup`, "latin1");
      const pss = /^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1];
      // A process that has ended and only waits for its parent to look has no memory to tell of.
      if (pss === undefined) continue;
      // Read after it: it is still the process that was meant.
      const now = parseProcessStat(pid, await readFile(`/proc/${pid}/stat`));
      if (now.start_ticks !== start_ticks) continue;
      kibibytes = (kibibytes ?? 0) + Number(pss);
    } catch (error) {
      if (!["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    }
  }
  return kibibytes === undefined ? undefined : kibibytes * 1_024;
}
