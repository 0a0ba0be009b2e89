import { closeSync } from "node:fs";
import { constants } from "node:os";
import { loadLibc, type NativeFunction } from "../../kit/libc.js";

/**
 * A handle on one process, pidfd_open(2): between a look at what it leads to and a signal through it the
 * pid cannot become another's, as it can with kill(2).
 */
export interface Pidfd {
  /** False when the process is over, or may not be signalled. */
  send(signal: number): boolean;
  /** As `send`, to the group that the process leads; `undefined` where the kernel (before 6.9) cannot. */
  sendToGroup(signal: number): boolean | undefined;
  close(): void;
}

/** The same numbers on every architecture that Node runs on. */
const SYS_PIDFD_SEND_SIGNAL = 424;
const SYS_PIDFD_OPEN = 434;
const PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2;

type Libc = { syscall: NativeFunction; errno: () => number };

let libc: Libc | false | undefined;

function load(): Libc | false {
  try {
    const loaded = loadLibc();
    // By number: libcs before glibc 2.36 have no functions for these calls.
    return loaded ? { syscall: loaded.func("long syscall(long number, ...)"), errno: loaded.errno } : false;
  } catch {
    return false;
  }
}

/** `undefined` where there is no such process, no koffi, or no such call (Linux 5.3). */
export function openPidfd(pid: number): Pidfd | undefined {
  libc ??= load();
  if (!libc) return undefined;
  const { syscall, errno } = libc;
  // Closed by exec, always.
  const fd = syscall(SYS_PIDFD_OPEN, "int", pid, "unsigned int", 0);
  if (fd < 0) return undefined;
  const send = (signal: number, flags: number) =>
    syscall(SYS_PIDFD_SEND_SIGNAL, "int", fd, "int", signal, "void *", null, "unsigned int", flags) === 0;
  return {
    send: (signal) => send(signal, 0),
    sendToGroup: (signal) =>
      send(signal, PIDFD_SIGNAL_PROCESS_GROUP) || (errno() === constants.errno.EINVAL ? undefined : false),
    close: () => closeSync(fd),
  };
}
