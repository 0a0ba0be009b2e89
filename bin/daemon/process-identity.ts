import { readFileSync } from "node:fs";

/** One process, told from a later one of the same pid by its start time. */
export interface ProcessIdentity {
  pid: number;
  startTime: string;
}

/** `undefined` when there is no such process, or only what is left of one that has ended. */
export function identify(pid: number): ProcessIdentity | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name in parentheses may hold anything; the fields after the last ")" count from 3.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state, startTime] = [fields[0], fields[19]];
    return state === "Z" || state === "X" || startTime === undefined ? undefined : { pid, startTime };
  } catch {
    // It is gone.
    return undefined;
  }
}

export function isGone(identity: ProcessIdentity): boolean {
  return identify(identity.pid)?.startTime !== identity.startTime;
}
