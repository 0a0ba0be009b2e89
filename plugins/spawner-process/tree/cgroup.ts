import { mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from "node:fs";
import { basename, join, normalize } from "node:path";
import { baseOfGroups, groupsIn, mountOfGroups, removeIfEmpty } from "../limits/controllers.js";
import { readIfThere } from "./identity.js";

/**
 * One cgroup v2 per run (Linux, cgroups(7)): a process cannot leave it by `setsid` or by a double
 * fork, and `cgroup.kill` ends all of it at once.
 */
export interface Cgroups {
  /** Where the groups of the runs are, and the group that this is in. */
  readonly folder: string;
  readonly base: string;
  /** Makes the group of a run; `undefined` when it cannot be made. */
  create(runId: string): string | undefined;
  /** Runs that have a group. */
  runs(): string[];
  pathOf(runId: string): string;
  /**
   * Whether a recorded path is that of a group of this run, which this process is in. A daemon that was
   * started elsewhere, such as in another session, has made its groups elsewhere.
   */
  isGroupOf(path: string, runId: string, pid: number): boolean;
  /** Removes the folder of this home's groups, unless one of them is left. */
  release(): void;
}

/**
 * Groups below the daemon's own, in a folder of this home. `undefined` where cgroup v2 is absent or
 * may not be written (then containment is by session, ancestry and environment tag).
 */
export function openCgroups(homeTag: string): Cgroups | undefined {
  const base = baseOfGroups();
  if (base === undefined) return undefined;
  const folder = join(base, `openstarry-${homeTag}`);
  try {
    mkdirSync(folder, { recursive: true });
    // Being able to make a folder is not being allowed to move processes.
    writeFileSync(join(folder, "cgroup.procs"), "");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EINVAL") return undefined;
  }
  return {
    base,
    folder,
    create(runId) {
      const path = join(folder, runId);
      try {
        mkdirSync(path, { recursive: true });
        return path;
      } catch {
        return undefined;
      }
    },
    runs: () => groupsIn(folder),
    pathOf: (runId) => join(folder, runId),
    isGroupOf: (path, runId, pid) => isGroupBelow(mountOfGroups(), path, join(basename(folder), runId), pid),
    release() {
      // Some may have had threads that were still ending.
      for (const runId of groupsIn(folder)) removeCgroup(join(folder, runId));
      removeIfEmpty(folder);
    },
  };
}

function isGroupBelow(mount: string | undefined, path: string, name: string, pid: number): boolean {
  if (mount === undefined || path !== normalize(path)) return false;
  return path.startsWith(`${mount}/`) && path.endsWith(`/${name}`) && isInCgroup(pid, path);
}

/** A group that is gone, or that is being removed. */
const NO_SUCH_GROUP = ["ENOENT", "ENODEV"];
/** A threaded group names no processes; those of its threads are named by the group above it. */
const THREADED = "EOPNOTSUPP";

/** The living pids of a group and of the groups below it. Throws when they cannot be told. */
export function cgroupPids(path: string): number[] {
  return [...pidsOf(path, NO_SUCH_GROUP), ...groupsBelow(path).flatMap(pidsBelow)];
}

function pidsBelow(path: string): number[] {
  return [...pidsOf(path, [...NO_SUCH_GROUP, THREADED]), ...groupsBelow(path).flatMap(pidsBelow)];
}

function pidsOf(path: string, absent: readonly string[]): number[] {
  const text = readIfThere(join(path, "cgroup.procs"), absent) ?? "";
  return text.split("\n").filter(Boolean).map(Number);
}

function groupsBelow(path: string): string[] {
  try {
    // A folder has a link for each folder in it, besides its own two; a group holds dozens of other files.
    if (statSync(path).nlink === 2) return [];
    const entries = readdirSync(path, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => join(path, entry.name));
  } catch (error) {
    if (NO_SUCH_GROUP.includes((error as NodeJS.ErrnoException).code ?? "")) return [];
    throw error;
  }
}

/** Kills everything in the group; false where the kernel (before 5.14) cannot, or the daemon is in it. */
export function killCgroup(path: string): boolean {
  // A daemon that was started from inside an agent.
  if (cgroupPids(path).includes(process.pid)) return false;
  try {
    writeFileSync(join(path, "cgroup.kill"), "1");
    return true;
  } catch {
    return false;
  }
}

/** Removes an empty group with those below it; one that is not empty stays. */
export function removeCgroup(path: string): void {
  try {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (entry.isDirectory()) removeCgroup(join(path, entry.name));
    }
    rmdirSync(path);
  } catch {
    // Gone already, or not empty yet: the next sweep removes it.
  }
}

/** Whether the process is in the group. */
export function isInCgroup(pid: number, path: string): boolean {
  try {
    const own = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8"))?.[1];
    return own !== undefined && own !== "/" && path.endsWith(own);
  } catch {
    return false;
  }
}
