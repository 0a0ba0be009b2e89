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

/** `daemon.log`, written by one daemon only. */
export interface LogFile {
  /** Appends a record with its line end. Never throws: records that cannot be written are counted and dropped. */
  write(line: string): void;
}

/** Opens `daemon.log` for appending, 0600. Throws `home_unusable` if it is not a regular file. */
export function openLogFile(home: string): number {
  const path = join(home, HOME_FILES.log);
  try {
    const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
    const fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
    if (!fstatSync(fd).isFile()) {
      closeSync(fd);
      throw new Error("it is not a regular file");
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
 * Writes `daemon.log`, and rotates it into `daemon.log.1` at 10 MiB. Writing is synchronous, so that the last records
 * before an exit are not lost.
 */
export function createLogFile(home: string, rotateAboveBytes = ROTATE_ABOVE_BYTES): LogFile {
  const fd = openLogFile(home);
  const archive = join(home, `${HOME_FILES.log}.1`);
  let maxBytes = rotateAboveBytes;
  let lost = 0;

  function makeRoom(bytes: number): void {
    const { size } = fstatSync(fd);
    if (size === 0 || size + bytes <= maxBytes) return;
    try {
      rotateInto(archive, fd);
      maxBytes = rotateAboveBytes;
    } catch {
      // Do not retry at every line.
      maxBytes = size + bytes + rotateAboveBytes / 10;
    }
  }

  return {
    write(line) {
      try {
        const bytes = Buffer.from(lost === 0 ? line : lostRecord(lost) + line);
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
 * Copies and truncates the file. It is not renamed: standard output and error of a background daemon are open on it,
 * and a crash of Node is printed there. Nothing is lost between the two steps, because only this thread writes to it.
 */
function rotateInto(archive: string, fd: number): void {
  rmSync(archive, { force: true });
  copyFileSync(`/proc/self/fd/${fd}`, archive, constants.COPYFILE_EXCL);
  ftruncateSync(fd);
}

/** Appends all bytes or, on a full disk, none: half a record would damage the next one too. */
function append(fd: number, bytes: Buffer): void {
  const { size } = fstatSync(fd);
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
  } catch (error) {
    ftruncateSync(fd, size);
    throw error;
  }
}

function lostRecord(lost: number): string {
  const msg = "some log records could not be written";
  return `${JSON.stringify({ level: "warn", time: new Date().toISOString(), lost, msg })}\n`;
}
