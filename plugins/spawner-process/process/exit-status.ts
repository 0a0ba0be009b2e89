import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { constants as osConstants } from "node:os";
import type { ExitStatus } from "../../../core/index.js";

const SIGNAL_NAMES = new Map(Object.entries(osConstants.signals).map(([name, number]) => [number, name]));

/** What a shell's `$?` says: over 128 it names a signal, where there is one of that number. */
export function decodeStatus(code: number): ExitStatus {
  const signal = code > 128 && code < 160 ? SIGNAL_NAMES.get(code - 128) : undefined;
  return signal === undefined ? { kind: "exited", code } : { kind: "signaled", signal, raw_status: code };
}

/** What passes: no free descriptors, no memory. */
const LACK_OF_MEANS = ["EMFILE", "ENFILE", "ENOMEM"];

/**
 * At most so many bytes of a plain file; `undefined` for anything else, links included. Never blocks.
 * Throws when it could not be read for want of descriptors or memory: that says nothing about the file.
 */
export function readPlainFile(path: string, maxBytes: number): Buffer | "too large" | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stat = fstatSync(fd);
    if (!stat.isFile()) return undefined;
    if (stat.size > maxBytes) return "too large";
    const buffer = Buffer.alloc(stat.size);
    const length = readSync(fd, buffer, 0, stat.size, 0);
    return buffer.subarray(0, length);
  } catch (error) {
    if (LACK_OF_MEANS.includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** An agent that was held at its gate when the daemon died. */
const NEVER_RAN: ExitStatus = {
  kind: "spawn_failed",
  error: { code: "spawn_failed", detail: "the daemon died before it was let go" },
};

/**
 * What the shim wrote: exactly `exit N` and a line end, or that the agent never ran. Anything else (nothing, half a line, two
 * lines, a number that no process can end with) is not known, and is never success.
 */
export function readStatusFile(path: string): ExitStatus | undefined {
  const content = readPlainFile(path, 64);
  if (content === undefined || content === "too large") return undefined;
  const text = content.toString("latin1");
  if (text === "never\nexit 125\n") return NEVER_RAN;
  const match = /^exit (\d{1,3})\n$/.exec(text);
  const code = Number(match?.[1]);
  return match && code <= 255 ? decodeStatus(code) : undefined;
}
