import { closeSync, constants, lstatSync, openSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { OpenStarryError } from "../../core/contracts/errors.js";
import { readDaemonInfo } from "./daemon-info.js";
import { HOME_FILES } from "./home.js";

/** Held by the one daemon of a home. */
export interface Lock {
  release(): void;
}

/**
 * Takes the home's lock: an SQLite write lock on `daemon.lock`, which the operating system releases when the process
 * ends, however it ends. Rejects with `daemon_running`, naming the holder's pid.
 *
 * Nothing in this process may open `daemon.lock` while the lock is held: a process loses its POSIX record locks on a
 * file with the first descriptor of that file that it closes.
 */
export async function takeLock(home: string): Promise<Lock> {
  const path = join(home, HOME_FILES.lock);
  createLockFile(path);
  const { default: Database } = await import("libsql");
  const database = new Database(path, { timeout: 0 });
  try {
    // No journal file beside the lock: nothing is ever written to this database.
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
  } catch (cause) {
    database.close();
    if (!String((cause as { code?: unknown }).code).startsWith("SQLITE_BUSY")) {
      throw new OpenStarryError("home_unusable", {
        detail: `${path} cannot be locked: ${(cause as Error).message}`,
        hint: `if no daemon is running on ${home}, remove that file`,
        cause,
      });
    }
    throw daemonRunning(home);
  }
  return {
    release() {
      if (database.open) database.close();
    },
  };
}

function createLockFile(path: string): void {
  try {
    const flags = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW;
    closeSync(openSync(path, flags, 0o600));
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST" && lstatSync(path).isFile()) return;
    const why = code === "EEXIST" ? "it is not a regular file" : message;
    throw new OpenStarryError("home_unusable", {
      detail: `${path} cannot be used: ${why}`,
      hint: "remove it and start again",
      cause,
    });
  }
}

/** Makes the error for a second daemon; it names the first one's pid if known. */
export function daemonRunning(home: string): OpenStarryError {
  const pid = lockHolder(home) ?? readDaemonInfo(home)?.pid;
  return new OpenStarryError("daemon_running", {
    detail: `a daemon is running on ${home}${pid === undefined ? "" : ` (pid ${pid})`}`,
    hint: "show it with openstarry-daemon status, stop it with openstarry-daemon stop, or use another folder with --home",
    data: pid === undefined ? {} : { pid },
  });
}

/** The table of locks is read page by page: a lock that is released meanwhile may hide another one. So it is read again. */
const ATTEMPTS = 5;

/** Answers the pid of the process that holds the home's lock now, from the operating system. */
export function lockHolder(home: string): number | undefined {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const pid = readHolder(home);
    if (pid !== undefined) return pid;
  }
  return undefined;
}

function readHolder(home: string): number | undefined {
  try {
    const { ino, dev } = statSync(join(home, HOME_FILES.lock));
    for (const line of readFileSync("/proc/locks", "utf8").split("\n")) {
      // "1: POSIX  ADVISORY  WRITE 7148 fe:00:10004157 1073741824 1073742335"
      const match = /POSIX\s+\S+\s+WRITE\s+(\d+)\s+[0-9a-f]+:[0-9a-f]+:(\d+)\s/.exec(line);
      const pid = Number(match?.[1]);
      if (match?.[2] === String(ino) && pid > 1 && hasOpen(pid, ino, dev)) return pid;
    }
  } catch {
    // No lock file, or no table of locks: the holder is unknown.
  }
  return undefined;
}

/** Checks device and inode: inode numbers repeat across file systems, and some show another device in `/proc/locks`. */
function hasOpen(pid: number, ino: number, dev: number): boolean {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).some((fd) => {
    const stat = statSync(join(folder, fd), { throwIfNoEntry: false });
    return stat?.ino === ino && stat.dev === dev;
  });
}
