import { readdirSync } from "node:fs";
import { NOT_TO_BE_SEEN, type ProcessStat, readIfThere, readStat, readVisibleStat } from "./identity.js";

/** Every process that lives and may be seen. Throws when that cannot be told. */
export function allProcesses(): ProcessStat[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return living(pids.map(Number), readVisibleStat);
}

/** Those of these that live: a zombie does not. */
export function living(pids: readonly number[], stat = readStat): ProcessStat[] {
  return pids
    .map((pid) => stat(pid))
    .filter((it) => it !== undefined && it.state !== "Z" && it.state !== "X") as ProcessStat[];
}

/** A variable of a process, as it was given when the process began. Throws when that cannot be told. */
export function environmentOf(pid: number, name: string): string | undefined {
  const entries = readIfThere(`/proc/${pid}/environ`, NOT_TO_BE_SEEN)?.split("\0") ?? [];
  return entries.find((it) => it.startsWith(`${name}=`))?.slice(name.length + 1);
}
