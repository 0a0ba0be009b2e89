import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { promisify } from "node:util";

/**
 * Gives a range of a file back to the file system: it reads as zeros then, and the file keeps its size and
 * every offset in it. Idempotent. Rejects where the file system cannot do that.
 */
export type PunchHole = (
  target: { fd: number; path: string },
  offset: number,
  length: number,
) => Promise<void>;

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

/** fallocate(2) on a thread of its own; `undefined` where there is no koffi for this machine. */
export function loadPunchHole(): PunchHole | undefined {
  try {
    const koffi = createRequire(import.meta.url)("koffi") as Koffi;
    const fallocate = koffi.load(null).func("int fallocate64(int fd, int mode, int64 offset, int64 len)");
    return ({ fd, path }, offset, length) =>
      new Promise((resolve, reject) => {
        fallocate.async(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length, (error, result) => {
          if (error === null && result === 0) resolve();
          else reject(error ?? new Error(`no hole could be made in ${path}`));
        });
      });
  } catch {
    return undefined;
  }
}

type Finished = (error: Error | null, result: number) => void;
interface Koffi {
  load(path: null): {
    func(prototype: string): {
      async(fd: number, mode: number, offset: number, length: number, finished: Finished): void;
    };
  };
}

/** The same by fallocate(1) of util-linux; `tool` finds it, and throws when it is not there. */
export function punchByTool(tool: () => string): PunchHole {
  const run = promisify(execFile);
  return async ({ path }, offset, length) => {
    await run(tool(), ["--punch-hole", "--offset", String(offset), "--length", String(length), path], {
      env: {},
    });
  };
}
