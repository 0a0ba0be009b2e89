import type { Clock, Logger } from "../../core/index.js";
import type { LimitGroups } from "./limits/limits.js";
import type { PunchHole } from "./logs/punch-hole.js";
import type { RunFolders } from "./process/folders.js";
import type { PosixSpawn } from "./process/posix-spawn.js";
import type { Cgroups } from "./tree/cgroup.js";

/** What the spawner needs of the daemon and of this machine. */
export interface ProcessSpawnerDeps {
  clock: Clock;
  log: Logger;
  home: string;
  folders: RunFolders;
  /** `undefined` where cgroup v2 cannot be used. */
  cgroups: Cgroups | undefined;
  /** Absent where no cgroup can enforce limits. */
  limits?: LimitGroups | undefined;
  /** `undefined`: processes are created by fork. */
  native: PosixSpawn | undefined;
  /** `undefined`: holes in output files are made by fallocate(1). */
  punch: PunchHole | undefined;
  /** The daemon's own environment, for `pass_env`. */
  env: Readonly<Record<string, string | undefined>>;
  /** Reports a problem that concerns no single agent. */
  onProblem(problem: string): void;
}
