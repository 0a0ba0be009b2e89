import { constants } from "node:fs";
import { type FileHandle, open, realpath, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { type ErrorCode, isOpenStarryError, OpenStarryError } from "../contracts/errors.js";

export interface ReadTextOptions {
  /** In bytes. A larger file is refused before it is read. */
  maxBytes: number;
  /** The error code of a file that cannot be used. */
  code: ErrorCode;
  /** What the file is, for messages: `config`, `template`. */
  what: string;
  /** Refuse what others than root could have written. Default: whether the process runs as root. */
  asRoot?: boolean;
}

/**
 * The content of a regular file as UTF-8 text; `undefined` when there is none. Everything that is
 * checked is checked on the open file, so that it cannot be another one by the time it is read.
 */
export async function readTextFile(file: string, options: ReadTextOptions): Promise<string | undefined> {
  const refuse = (problem: string, hint?: string, cause?: unknown) =>
    new OpenStarryError(options.code, {
      detail: `${options.what} ${file}: ${problem}`,
      hint,
      cause,
    });
  let handle: FileHandle | undefined;
  try {
    // Without O_NONBLOCK, opening a FIFO that nobody writes to never returns.
    handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const stats = await handle.stat();
    if (!stats.isFile()) throw refuse("it is not a regular file", "give the name of a file");
    if (stats.size > options.maxBytes) {
      throw refuse(
        `it has ${stats.size} bytes, and at most ${options.maxBytes} are read`,
        "make it smaller, or check that it is the file that is meant",
      );
    }
    await refuseForeign(file, stats, options);
    return decode(await readAtMost(handle, options.maxBytes), refuse);
  } catch (error) {
    if (isOpenStarryError(error)) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    const denied = code === "EACCES" || code === "EPERM";
    throw refuse(
      denied ? "it may not be read" : `it cannot be read: ${message}`,
      denied ? `let the daemon's user read it, for example with: chmod u+r ${file}` : undefined,
      error,
    );
  } finally {
    await handle?.close();
  }
}

/** What grows while it is read is cut off, so that the limit holds. */
async function readAtMost(handle: FileHandle, maxBytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(Math.min((await handle.stat()).size, maxBytes));
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

function decode(bytes: Buffer, refuse: (problem: string, hint: string) => OpenStarryError): string {
  const [first, second, third] = bytes;
  const marked = (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff);
  if (marked || (first === 0xef && second === 0xbb && third === 0xbf)) {
    throw refuse("it starts with a byte order mark", "save it as UTF-8 without a byte order mark (BOM)");
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw refuse("it is not UTF-8 text", "save it as UTF-8");
  }
}

interface Owned {
  uid: number;
  gid: number;
  mode: number;
}

const STICKY = 0o1000;

/**
 * When the daemon runs as root: refuses a file that somebody else owns or may write, or whose folder
 * lets somebody else put another in its place. A config, template or plugin decides what runs as root.
 */
async function refuseForeign(file: string, stats: Owned, options: ReadTextOptions): Promise<void> {
  if (!(options.asRoot ?? process.getuid?.() === 0)) return;
  const folders = new Set([dirname(file), dirname(await realpath(file))]);
  const problems = [foreign("it", stats, "file")];
  for (const folder of folders) problems.push(foreign(`its folder ${folder}`, await stat(folder), "folder"));
  const problem = problems.find((it) => it !== undefined);
  if (problem === undefined) return;
  throw new OpenStarryError(options.code, {
    detail: `${options.what} ${file}: ${problem}, and the daemon runs as root`,
    hint: `give it to root and to nobody else (chown root:root, chmod go-w), or run the daemon as another user`,
  });
}

function foreign(what: string, { uid, gid, mode }: Owned, kind: "file" | "folder"): string | undefined {
  if (uid !== 0) return `${what} belongs to user ${uid}`;
  // In a sticky folder such as /tmp, nobody can replace what belongs to root.
  if (kind === "folder" && (mode & STICKY) !== 0) return undefined;
  if ((mode & 0o002) !== 0) return `${what} can be written by everybody`;
  return (mode & 0o020) !== 0 && gid !== 0 ? `${what} can be written by group ${gid}` : undefined;
}
