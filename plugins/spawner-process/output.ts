import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";

/** The output files of one run. With `merge` both streams go to the first. */
export function logFile(folder: string, runId: string, stream: "stdout" | "stderr"): string {
  return join(folder, `${runId}.${stream}.log`);
}

const TAIL_BYTES = 4_096;

/** The last lines of the last of these files that has any, at most 4 KiB; stderr is asked first. */
export function readTail(files: readonly string[]): string | undefined {
  for (const file of [...files].reverse()) {
    const bytes = readEnd(file, TAIL_BYTES);
    if (!bytes || bytes.length === 0) continue;
    const text = bytes.toString("utf8");
    const firstLine = bytes.length === TAIL_BYTES ? text.indexOf("\n") + 1 : 0;
    return text.slice(firstLine).trimEnd();
  }
  return undefined;
}

function readEnd(file: string, maxBytes: number): Buffer | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(file, "r");
    const { size } = fstatSync(fd);
    const buffer = Buffer.alloc(Math.min(size, maxBytes));
    return buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, size - buffer.length));
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
