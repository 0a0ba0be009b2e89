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

/** What lies in the daemon's folder and belongs to the process around the kernel. */
export const HOME_FILES = {
  lock: "daemon.lock",
  info: "daemon.json",
  log: "daemon.log",
  token: "token",
  socket: "daemon.sock",
} as const;

/** `--home`, else `$OPENSTARRY_HOME`, else `~/.openstarry/daemon`; absolute. */
export function resolveHome(option: string | undefined, env: NodeJS.ProcessEnv = process.env): string {
  return resolve(option || env.OPENSTARRY_HOME || join(homedir(), ".openstarry", "daemon"));
}

/**
 * Whether this process is an agent of the daemon of this home, and not one that was pointed elsewhere by
 * another `$OPENSTARRY_HOME`: its token lies in that home, or, for an agent that runs as another user,
 * outside of it, while that home is closed to this user.
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
    // Gone, or not for this user to look into.
    return resolve(path);
  }
}

/**
 * Makes the daemon's folder (0700 whatever the umask) or checks the one that is there. Throws
 * `home_unusable` for a symbolic link, somebody else's folder, one that others can write to, or one
 * that cannot be written.
 */
export function prepareHome(home: string): void {
  try {
    makeFolder(home);
    const stat = lstatSync(home);
    const uid = process.geteuid?.() ?? stat.uid;
    if (stat.isSymbolicLink()) throw unusable(home, "it is a symbolic link", "name the folder itself");
    if (!stat.isDirectory()) throw unusable(home, "it is not a folder", "name a folder with --home");
    if (stat.uid !== uid) {
      throw unusable(
        home,
        `it belongs to uid ${stat.uid}, not to uid ${uid}`,
        "name one of your own with --home",
      );
    }
    if (stat.mode & 0o022) {
      const mode = (stat.mode & 0o777).toString(8);
      throw unusable(
        home,
        `others can write to it (mode ${mode})`,
        `look what is in it, then: chmod 700 ${home}`,
      );
    }
    if ((stat.mode & 0o777) !== 0o700) chmodSync(home, 0o700);
    accessSync(home, constants.W_OK | constants.X_OK);
  } catch (cause) {
    if (cause instanceof OpenStarryError) throw cause;
    const why = (cause as NodeJS.ErrnoException).message;
    throw unusable(home, why, "name a folder that you can write to with --home", cause);
  }
}

/** Every missing level is made 0700: `mkdir` alone would let the umask decide. */
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
 * Replaces a file of 0600 (whatever the umask) in one step; a reader sees the old or the new content, never
 * a part. Throws `home_unusable`, with the old content in place and nothing beside it.
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
    const hint = full
      ? "free disk space, then try again"
      : "see that the folder can be written, then try again";
    rmSync(draft, { force: true });
    throw unusable(path, `it could not be written (${full ? "the disk is full" : message})`, hint, cause);
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
 * Reads a small file that only its owner may read or write, such as the token. `undefined` when there
 * is none. Throws `home_unusable` when it is a link, somebody else's, or open to others.
 */
export function readPrivateFile(path: string): string | undefined {
  let fd: number;
  try {
    // O_NONBLOCK: a FIFO in its place must not hold the reader up.
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
    if (!stat.isFile()) throw unusable(path, "it is not a file", "remove it and restart the daemon");
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
