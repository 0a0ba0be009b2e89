import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { join } from "node:path";

/** Whether a small file system can be mounted here. */
export const canMount = process.getuid?.() === 0 && triesToMount();

function triesToMount(): boolean {
  try {
    execFileSync("unshare", ["--mount", "mount", "-t", "tmpfs", "none", "/mnt"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

export interface SmallDisk {
  /** Leaves no byte free. */
  fill(): void;
  free(): void;
  remove(): void;
}

/** A file system of its own in memory, of this size in KiB, at `folder`. */
export function mountSmallDisk(folder: string, sizeKiB: number): SmallDisk {
  mkdirSync(folder, { recursive: true });
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${sizeKiB}k,mode=700`, "none", folder]);
  const ballast = join(folder, "ballast");
  return {
    fill() {
      const fd = openSync(ballast, "a");
      try {
        for (const block = Buffer.alloc(4_096); statfsSync(folder).bavail > 0; ) writeSync(fd, block);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
      } finally {
        closeSync(fd);
      }
    },
    free: () => rmSync(ballast, { force: true }),
    remove: () => void execFileSync("umount", ["-l", folder]),
  };
}
