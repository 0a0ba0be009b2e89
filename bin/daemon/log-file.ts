import {
  closeSync,
  constants,
  copyFileSync,
  fchmodSync,
  fstatSync,
  ftruncateSync,
  openSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { OpenStarryError } from "../../core/contracts/errors.js";
import { HOME_FILES } from "./home.js";

const ROTATE_ABOVE_BYTES = 10 * 2 ** 20;

/** `daemon.log`, in the hands of the one daemon that writes it. */
export interface LogFile {
  /** Appends a record with its line end. Never throws: what cannot be written is counted and left out. */
  write(line: string): void;
}

/**
 * Opens `daemon.log` for appending, 0600. Throws `home_unusable` when something else than a plain file
 * lies there.
 */
export function openLogFile(home: string): number {
  const path = join(home, HOME_FILES.log);
  try {
    const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
    const fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
    if (!fstatSync(fd).isFile()) {
      closeSync(fd);
      throw new Error("it is not a plain file");
    }
    fchmodSync(fd, 0o600);
    return fd;
  } catch (cause) {
    throw new OpenStarryError("home_unusable", {
      detail: `${path} cannot be written: ${(cause as Error).message}`,
      hint: "remove it and start again",
      cause,
    });
  }
}

/**
 * `daemon.log` and, of what came before the last 10 MiB or less, `daemon.log.1`. Writing is synchronous:
 * the last words before an end are there.
 */
export function createLogFile(home: string, rotateAboveBytes = ROTATE_ABOVE_BYTES): LogFile {
  const fd = openLogFile(home);
  const archive = join(home, `${HOME_FILES.log}.1`);
  let mostBytes = rotateAboveBytes;
  let lost = 0;

  function makeRoom(bytes: number): void {
    const { size } = fstatSync(fd);
    if (size === 0 || size + bytes <= mostBytes) return;
    try {
      moveInto(archive, fd);
      mostBytes = rotateAboveBytes;
    } catch {
      // Not at every line again.
      mostBytes = size + bytes + rotateAboveBytes / 10;
    }
  }

  return {
    write(line) {
      try {
        const bytes = Buffer.from(lost === 0 ? line : lostLines(lost) + line);
        makeRoom(bytes.length);
        append(fd, bytes);
        lost = 0;
      } catch {
        // A full disk must not end the daemon.
        lost += 1;
      }
    },
  };
}

/**
 * Copies and empties the file. It is not renamed, since standard output and error of a daemon in the
 * background lead to it, where a crash of Node itself is printed. Nothing is lost between the two steps:
 * all that is written there comes from this thread.
 */
function moveInto(archive: string, fd: number): void {
  rmSync(archive, { force: true });
  copyFileSync(`/proc/self/fd/${fd}`, archive, constants.COPYFILE_EXCL);
  ftruncateSync(fd);
}

/** All of it or, on a full disk, nothing: half a record would spoil the next one too. */
function append(fd: number, bytes: Buffer): void {
  const { size } = fstatSync(fd);
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
  } catch (error) {
    ftruncateSync(fd, size);
    throw error;
  }
}

function lostLines(lost: number): string {
  const msg = "the log could not be written for a while";
  return `${JSON.stringify({ level: "warn", time: new Date().toISOString(), lost, msg })}\n`;
}
