import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  type Stats,
  writeSync,
} from "node:fs";
import { OpenStarryError } from "../../core/index.js";

/** What a secret file may hold: at least 32 characters of base64url, and perhaps a line end. */
const SECRET = /^[A-Za-z0-9_-]{32,512}$/;
const MAX_BYTES = 1_024;

/** 32 random bytes as base64url: 43 characters. */
export function newSecret(): string {
  return randomBytes(32).toString("base64url");
}

/**
 * The secret in a file, made first when there is no file. Throws `home_unusable` with the reason when
 * the file could have been read or written by somebody else, or is not a plain file.
 */
export function readOrCreateSecret(path: string, make: () => string = newSecret): string {
  return readSecret(path) ?? createSecret(path, make());
}

/** `undefined` when there is no such file. Throws like `readOrCreateSecret`. */
export function readSecret(path: string): string | undefined {
  const fd = openPlain(path);
  if (fd === undefined) return undefined;
  try {
    const problem = problemOf(fstatSync(fd));
    if (problem) throw refused(path, problem);
    const secret = readFileSync(fd, "utf8").trim();
    if (!SECRET.test(secret)) throw refused(path, "does not hold 32 or more characters of base64url");
    return secret;
  } finally {
    closeSync(fd);
  }
}

function openPlain(path: string): number | undefined {
  try {
    // O_NONBLOCK: opening a FIFO that was put here must not wait for a writer.
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === "ENOENT") return undefined;
    throw refused(path, code === "ELOOP" ? "is a symbolic link" : `cannot be opened (${code})`, cause);
  }
}

function problemOf(stats: Stats): string | undefined {
  if (!stats.isFile()) return "is not a plain file";
  if (stats.uid !== process.geteuid?.()) return `belongs to uid ${stats.uid}, not to the daemon's`;
  if (stats.mode & 0o077) {
    return `can be used by others: its mode is 0${(stats.mode & 0o777).toString(8)}, it must be 0600`;
  }
  if (stats.nlink !== 1) return "has a second name (a hard link)";
  if (stats.size > MAX_BYTES) return `is larger than ${MAX_BYTES} bytes`;
  return undefined;
}

function refused(path: string, problem: string, cause?: unknown): OpenStarryError {
  return new OpenStarryError("home_unusable", {
    detail: `${path} ${problem}`,
    hint: `remove it and start again: a new one is made, and who used the old one needs the new one`,
    cause,
  });
}

/** Written beside its place and renamed, so that nobody ever reads half of it. */
function createSecret(path: string, secret: string): string {
  const beside = `${path}.${randomBytes(6).toString("hex")}`;
  const { O_CREAT, O_EXCL, O_WRONLY, O_NOFOLLOW } = constants;
  try {
    const fd = openSync(beside, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600);
    try {
      fchmodSync(fd, 0o600); // whatever the umask is
      writeSync(fd, `${secret}\n`);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(beside, path);
  } catch (cause) {
    throw refused(path, `cannot be made (${(cause as NodeJS.ErrnoException).code})`, cause);
  }
  return secret;
}
