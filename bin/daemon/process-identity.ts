import { readFileSync } from "node:fs";

/** A process; its start time tells it apart from a later one with the same pid. */
export interface ProcessIdentity {
  pid: number;
  startTime: string;
}

/** Identifies a process; `undefined` if it does not exist or is a zombie. */
export function identify(pid: number): ProcessIdentity | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name in parentheses may hold anything; the fields after the last ")" count from 3.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state, startTime] = [fields[0], fields[19]];
    return state === "Z" || state === "X" || startTime === undefined ? undefined : { pid, startTime };
  } catch {
    // It has exited.
    return undefined;
  }
}

export function isGone(identity: ProcessIdentity): boolean {
  return identify(identity.pid)?.startTime !== identity.startTime;
}
