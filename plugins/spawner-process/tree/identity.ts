import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { readKernelFile } from "../../kit/kernel-file.js";
import { openPidfd, type Pidfd } from "./pidfd.js";

/**
 * What proves that a pid is the process that was started: its kernel start time (field 22 of
 * proc(5) `stat`, in clock ticks since boot) and the boot it belongs to. A pid alone is reused.
 */
export interface ProcessIdentity {
  readonly pid: number;
  readonly start_ticks: number;
  readonly boot_id: string;
}

export interface ProcessStat {
  readonly pid: number;
  readonly name: string;
  /** One letter: R, S, D, Z (a zombie), T (stopped) … */
  readonly state: string;
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  readonly start_ticks: number;
}

let bootIdOnce: string | undefined;

/** Differs after every boot of the machine. */
export function bootId(): string {
  bootIdOnce ??= readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return bootIdOnce;
}

/**
 * A file of proc(5) or of a cgroup; `undefined` for one that is not there, by the error codes that say
 * so. Throws for all others: without free descriptors or memory nobody can tell what is there.
 */
export function readIfThere(path: string, absent: readonly string[]): string | undefined {
  try {
    return readKernelFile(path);
  } catch (error) {
    if (absent.includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
}

const NO_SUCH_PROCESS = ["ENOENT", "ESRCH"];
/** No such process, or one that is hidden from this user (proc(5), `hidepid`). */
export const NOT_TO_BE_SEEN: readonly string[] = [...NO_SUCH_PROCESS, "EACCES", "EPERM"];

/** As `readStat`, for processes at large: `undefined` also for one that is hidden from this user. */
export const readVisibleStat = (pid: number) => readStat(pid, NOT_TO_BE_SEEN);

/** `undefined` when there is no such process. Throws when that cannot be told. */
export function readStat(pid: number, absent: readonly string[] = NO_SUCH_PROCESS): ProcessStat | undefined {
  const text = readIfThere(`/proc/${pid}/stat`, absent);
  if (text === undefined) return undefined;
  // The name is whatever the process chose, brackets included: what follows the last one is fixed.
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  const fields = text.slice(close + 2).split(" ", 20);
  return {
    pid,
    name: text.slice(open + 1, close),
    state: fields[0] ?? "?",
    ppid: Number(fields[1]),
    pgid: Number(fields[2]),
    sid: Number(fields[3]),
    start_ticks: Number(fields[19]),
  };
}

export function identify(pid: number): ProcessIdentity | undefined {
  const stat = readStat(pid);
  return stat && { pid, start_ticks: stat.start_ticks, boot_id: bootId() };
}

/** True while this very process exists and is no zombie. Throws when that cannot be told. */
export function isAlive(identity: ProcessIdentity): boolean {
  if (identity.boot_id !== bootId()) return false;
  const stat = readStat(identity.pid);
  return (
    stat !== undefined &&
    stat.start_ticks === identity.start_ticks &&
    stat.state !== "Z" &&
    stat.state !== "X"
  );
}

/** Pids that are never signalled, whatever a record says: everybody, init, this process and its ancestors. */
export function isForbidden(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 1) return true;
  for (let it: number | undefined = process.pid; it !== undefined && it > 1; it = readVisibleStat(it)?.ppid) {
    if (it === pid) return true;
  }
  return false;
}

/** Signals this very process; false when it is gone, cannot be told, or was never ours to signal. */
export function signalProcess(identity: ProcessIdentity, signal: string | 0): boolean {
  return whileOurs(identity, (pidfd) => pidfd?.send(numberOf(signal)) ?? kill(identity.pid, signal));
}

/** Signals the process group that this process leads; only the process where it leads none. */
export function signalGroup(leader: ProcessIdentity, signal: string | 0): boolean {
  return whileOurs(leader, (pidfd) => {
    const leads = readStat(leader.pid)?.pgid === leader.pid;
    if (leads) return pidfd?.sendToGroup(numberOf(signal)) ?? kill(-leader.pid, signal);
    return pidfd?.send(numberOf(signal)) ?? kill(leader.pid, signal);
  });
}

/**
 * Sends to a pid that is proven to be this very process. With a handle, which is taken before the proof,
 * it still is when the signal arrives; without, nearly always. What cannot be told is left alone.
 */
function whileOurs(identity: ProcessIdentity, send: (pidfd: Pidfd | undefined) => boolean): boolean {
  let pidfd: Pidfd | undefined;
  try {
    if (isForbidden(identity.pid)) return false;
    pidfd = openPidfd(identity.pid);
    return isAlive(identity) && send(pidfd);
  } catch {
    // Gone meanwhile, not ours (EPERM), or not to be told: either way it was not signalled.
    return false;
  } finally {
    pidfd?.close();
  }
}

function numberOf(signal: string | 0): number {
  return signal === 0 ? 0 : constants.signals[signal as NodeJS.Signals];
}

const kill = (pid: number, signal: string | 0): boolean => process.kill(pid, signal);

/** A record's target, if it has the shape of one: records can be damaged. */
export function parseIdentity(value: unknown): ProcessIdentity | undefined {
  const { pid, start_ticks, boot_id } = (value ?? {}) as Partial<ProcessIdentity>;
  const valid =
    Number.isSafeInteger(pid) &&
    (pid ?? 0) > 1 &&
    Number.isSafeInteger(start_ticks) &&
    typeof boot_id === "string";
  return valid ? ({ pid, start_ticks, boot_id } as ProcessIdentity) : undefined;
}
