import { readKernelFile } from "../kit/kernel-file.js";

/** How the machine's memory does at one moment. What is absent could not be read. */
export interface MemoryReading {
  /** In percent of the last 10 s: `some` of the tasks waited for memory; in `full` all that had work did. */
  readonly psi?: { readonly some: number; readonly full: number };
  /** What programs could get without swapping. */
  readonly available?: { readonly bytes: number; readonly percent: number };
}

export interface MemoryFiles {
  /** In the format of `/proc/pressure/memory`; the kernel may have none (PSI is 4.20, and can be off). */
  psi: string;
  /** In the format of `/proc/meminfo`. */
  meminfo: string;
}

export function readMemory(files: MemoryFiles): MemoryReading {
  const psi = parsePsi(read(files.psi));
  const available = parseMeminfo(read(files.meminfo));
  return { ...(psi ? { psi } : {}), ...(available ? { available } : {}) };
}

function read(path: string): string {
  try {
    return readKernelFile(path);
  } catch {
    // Not on this system, not for this user, or switched off (EOPNOTSUPP).
    return "";
  }
}

/** Pressure stall information: https://docs.kernel.org/accounting/psi.html */
export function parsePsi(text: string): MemoryReading["psi"] {
  const average = (kind: string) => number(text, new RegExp(`^${kind} avg10=(\\d+(?:\\.\\d+)?) `, "m"));
  const [some, full] = [average("some"), average("full")];
  return some === undefined || full === undefined ? undefined : { some, full };
}

/** proc_meminfo(5). */
export function parseMeminfo(text: string): MemoryReading["available"] {
  const kibibytes = (name: string) => number(text, new RegExp(`^${name}: +(\\d+) kB$`, "m"));
  const [total, available] = [kibibytes("MemTotal"), kibibytes("MemAvailable")];
  if (!total || available === undefined) return undefined;
  return { bytes: available * 1_024, percent: (available / total) * 100 };
}

function number(text: string, pattern: RegExp): number | undefined {
  const found = pattern.exec(text)?.[1];
  return found === undefined ? undefined : Number(found);
}
