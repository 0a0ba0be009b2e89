import { readFileSync } from "node:fs";
import type { OsLimits } from "../../../core/index.js";
import type { User } from "../../kit/users.js";
import { isOther } from "../process/privileges.js";

/**
 * What executes what follows with a limit on the processes of its user: prlimit(1). RLIMIT_NPROC counts
 * all processes and threads of a user and does not bind root, so that it says something only of an
 * agent with a user of its own (setrlimit(2)). Empty where it does not, or prlimit is not there.
 */
export function limitProcesses(
  pids: number | undefined,
  user: User | undefined,
  tool: (name: string) => string,
): string[] {
  if (pids === undefined || !isOther(user) || user.uid === 0) return [];
  try {
    return [tool("prlimit"), `--nproc=${pids}:${pids}`, "--"];
  } catch {
    return [];
  }
}

/** The limit on open files that holds for a process, unless it is higher than what was wanted. */
export function openFilesHeld(pid: number, wanted: number | undefined): OsLimits {
  if (wanted === undefined) return {};
  try {
    const limits = readFileSync(`/proc/${pid}/limits`, "utf8");
    const hard = Number(/^Max open files +\S+ +(\d+)/m.exec(limits)?.[1]);
    return hard <= wanted ? { openFiles: hard } : {};
  } catch {
    return {};
  }
}
