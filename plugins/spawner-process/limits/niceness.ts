import { readdirSync } from "node:fs";
import { constants, getPriority, setPriority } from "node:os";

const { PRIORITY_LOW, PRIORITY_NORMAL } = constants.priority;

/**
 * Makes processes give way to all others, or no longer; answers whether one of them does now. Linux keeps
 * the niceness by thread (setpriority(2)). Only root may take it back.
 */
export function setNiceness(pids: readonly number[], nice: boolean): boolean {
  return pids.flatMap(threadsOf).filter((id) => isNice(id, nice)).length > 0;
}

function isNice(id: number, nice: boolean): boolean {
  try {
    setPriority(id, nice ? PRIORITY_LOW : PRIORITY_NORMAL);
    return nice;
  } catch {
    return niceOf(id) === PRIORITY_LOW;
  }
}

function niceOf(id: number): number | undefined {
  try {
    return getPriority(id);
  } catch {
    // It has ended.
    return undefined;
  }
}

function threadsOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map(Number);
  } catch {
    return [];
  }
}
