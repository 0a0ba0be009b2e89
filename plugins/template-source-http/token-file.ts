import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";

const MAX_BYTES = 8 * 1024;

/** The path, what is wrong, and what to do; nothing of the content. */
class TokenFileError extends Error {
  constructor(path: string, problem: string) {
    super(`is not asked: the token file ${path} ${problem}`);
  }
}

/**
 * The bearer token in a file, without the line end. Rejects when others than the daemon's user or root
 * could have read or written it. The message goes on after the service's name.
 */
export async function readToken(path: string): Promise<string> {
  const refuse = (problem: string) => new TokenFileError(path, problem);
  let file: FileHandle | undefined;
  try {
    // O_NONBLOCK: opening a FIFO that was put here must not wait for a writer.
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const { uid, mode, size } = await file.stat();
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw refuse("is not a plain file");
    if (uid !== process.geteuid?.() && uid !== 0) throw refuse(`belongs to uid ${uid}, not to the daemon's`);
    if ((mode & 0o077) !== 0) throw refuse("can be used by others: its mode must be 0600");
    if (size > MAX_BYTES) throw refuse(`has more than ${MAX_BYTES} bytes`);
    const token = (await file.readFile("latin1")).trim();
    if (!/^[\x21-\x7e]+$/.test(token)) throw refuse("does not hold a token alone, on one line");
    return token;
  } catch (error) {
    if (error instanceof TokenFileError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    throw refuse(code === "ELOOP" ? "is a symbolic link: name the file itself" : `cannot be read (${code})`);
  } finally {
    await file?.close();
  }
}
