import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { OpenStarryError } from "../../core/index.js";

/**
 * Creates a folder of mode 0700, or checks an existing one; returns its path. Throws `home_unusable` when it is not a
 * folder, belongs to another user or is accessible to others.
 */
export function privateFolder(path: string): string {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code !== "EEXIST") throw unusable(path, `cannot be made (${code})`, cause);
  }
  const stats = lstatSync(path);
  if (!stats.isDirectory()) throw unusable(path, "is no folder");
  if (stats.uid !== process.geteuid?.()) throw unusable(path, `belongs to uid ${stats.uid}`);
  if (stats.mode & 0o077) {
    throw unusable(path, `can be used by others: its mode is 0${(stats.mode & 0o777).toString(8)}, not 0700`);
  }
  return path;
}

/** Writes a file of mode 0600 atomically. A file that has this text already is left alone. */
export function writePrivateFile(path: string, text: string): void {
  if (holds(path, text)) return;
  const beside = `${path}.${randomBytes(6).toString("hex")}`;
  const { O_CREAT, O_EXCL, O_WRONLY, O_NOFOLLOW } = constants;
  try {
    const fd = openSync(beside, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600);
    try {
      writeSync(fd, text);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(beside, path);
  } catch (cause) {
    rmSync(beside, { force: true });
    throw unusable(path, `cannot be written (${(cause as NodeJS.ErrnoException).code})`, cause);
  }
}

function holds(path: string, text: string): boolean {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (!stats?.isFile() || stats.mode & 0o077 || stats.uid !== process.geteuid?.()) return false;
  return readFileSync(path, "utf8") === text;
}

function unusable(path: string, problem: string, cause?: unknown): OpenStarryError {
  return new OpenStarryError("home_unusable", {
    detail: `${path} ${problem}`,
    hint: "see who put it there, and free disk space where that is short; then start again",
    cause,
  });
}
