import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { OpenStarryError } from "../../core/contracts/errors.js";

/** The files in the daemon's folder that belong to the process around the kernel. */
export const HOME_FILES = {
  lock: "daemon.lock",
  info: "daemon.json",
  log: "daemon.log",
  token: "token",
  socket: "daemon.sock",
} as const;

/** Finds the daemon's folder: `--home`, `$OPENSTARRY_HOME` or `~/.openstarry/daemon`; absolute. */
export function resolveHome(option: string | undefined, env: NodeJS.ProcessEnv = process.env): string {
  return resolve(option || env.OPENSTARRY_HOME || join(homedir(), ".openstarry", "daemon"));
}

/**
 * Tells whether this process runs in an agent of this home's daemon, and not in one of another daemon: its token is in
 * that home; or, for an agent that runs as another user, outside of it, and that home is closed to this user.
 */
export function isAgentOf(home: string, env: NodeJS.ProcessEnv): boolean {
  const token = env.OPENSTARRY_TOKEN_FILE;
  if (!token) return false;
  if (realPath(token).startsWith(join(realPath(home), "agents", "/"))) return true;
  try {
    accessSync(join(home, HOME_FILES.info), constants.R_OK);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EACCES";
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    // It does not exist, or this user may not read it.
    return resolve(path);
  }
}

/**
 * Creates the daemon's folder (0700 whatever the umask) or checks an existing one. Throws `home_unusable` for a
 * symbolic link, a folder of another user, one that others can write to, or one that cannot be written.
 */
export function prepareHome(home: string): void {
  try {
    makeFolder(home);
    const stat = lstatSync(home);
    const uid = process.geteuid?.() ?? stat.uid;
    if (stat.isSymbolicLink()) throw unusable(home, "it is a symbolic link", "give the folder itself");
    if (!stat.isDirectory()) throw unusable(home, "it is not a folder", "give a folder with --home");
    if (stat.uid !== uid) {
      throw unusable(
        home,
        `it belongs to uid ${stat.uid}, not to uid ${uid}`,
        "give a folder of your own with --home",
      );
    }
    if (stat.mode & 0o022) {
      const mode = (stat.mode & 0o777).toString(8);
      throw unusable(
        home,
        `others can write to it (mode ${mode})`,
        `check what is in it, then run: chmod 700 ${home}`,
      );
    }
    if ((stat.mode & 0o777) !== 0o700) chmodSync(home, 0o700);
    accessSync(home, constants.W_OK | constants.X_OK);
  } catch (cause) {
    if (cause instanceof OpenStarryError) throw cause;
    const why = (cause as NodeJS.ErrnoException).message;
    throw unusable(home, why, "give a folder that you can write to with --home", cause);
  }
}

/** Creates every missing level with 0700: `mkdir` alone would apply the umask. */
function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o700 });
    chmodSync(folder, 0o700);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST") return;
    if (code !== "ENOENT" || dirname(folder) === folder) throw error;
    makeFolder(dirname(folder));
    makeFolder(folder);
  }
}

function unusable(path: string, why: string, hint: string, cause?: unknown): OpenStarryError {
  return new OpenStarryError("home_unusable", { detail: `${path} cannot be used: ${why}`, hint, cause });
}

/**
 * Replaces a file of mode 0600 (whatever the umask) atomically: a reader sees the old or the new content, never a part.
 * Throws `home_unusable` and then leaves the old content and no temporary file.
 */
export function writePrivateFile(path: string, content: string): void {
  const draft = `${path}.${process.pid}.tmp`;
  try {
    rmSync(draft, { force: true });
    writeDraft(draft, content);
    renameSync(draft, path);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const full = code === "ENOSPC" || code === "EDQUOT";
    const hint = full ? "free disk space, then try again" : "make the folder writable, then try again";
    rmSync(draft, { force: true });
    throw unusable(path, `it cannot be written (${full ? "the disk is full" : message})`, hint, cause);
  }
}

function writeDraft(draft: string, content: string): void {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const fd = openSync(draft, flags, 0o600);
  try {
    fchmodSync(fd, 0o600);
    writeFileSync(fd, content);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Reads a small file that only its owner may access, such as the token; `undefined` if it does not exist. Throws
 * `home_unusable` if it is a link, belongs to another user, or is open to others.
 */
export function readPrivateFile(path: string): string | undefined {
  let fd: number;
  try {
    // O_NONBLOCK: a FIFO in its place must not block the reader.
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    if (code === "ELOOP") throw unusable(path, "it is a symbolic link", "remove it and restart the daemon");
    throw unusable(path, message, "run this as the user who runs the daemon", cause);
  }
  try {
    const stat = fstatSync(fd);
    const uid = process.geteuid?.() ?? stat.uid;
    if (!stat.isFile()) throw unusable(path, "it is not a regular file", "remove it and restart the daemon");
    if (stat.uid !== uid) {
      throw unusable(path, `it belongs to uid ${stat.uid}`, "run this as the user who runs the daemon");
    }
    if (stat.mode & 0o077) {
      const mode = (stat.mode & 0o777).toString(8);
      throw unusable(path, `others can read or write it (mode ${mode})`, `chmod 600 ${path}`);
    }
    if (stat.size > 65_536) throw unusable(path, "it is too large", "remove it and restart the daemon");
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
}
