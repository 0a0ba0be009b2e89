import { constants, existsSync } from "node:fs";
import { type FileHandle, open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";
import type { Row } from "openstarry-daemon/kit";

/** One line of the file: what has changed together. */
export type Line =
  /** The first one: versions go on from here. */
  | { version: number }
  /** What is known of a namespace besides its keys. */
  | { ns: string; forgotten: number }
  | { ns: string; changes: Row[] }
  | { ns: string; dropped: number };

/**
 * A file of JSON lines that only grows, until it is written anew. A line counts when it is on the disk with
 * its end: what a crash left without one was acknowledged to nobody, and is cut off.
 */
export async function openLines(path: string, onLine: (line: Line) => void) {
  const text = existsSync(path) ? await readFile(path) : Buffer.alloc(0);
  let size = text.lastIndexOf(10) + 1;
  for (const [index, line] of text.toString("utf8", 0, size).split("\n").slice(0, -1).entries()) {
    try {
      onLine(JSON.parse(line));
    } catch (cause) {
      // Nothing is guessed, and nothing is written over it.
      throw new Error(`${path}: line ${index + 1} is not what was written there`, { cause });
    }
  }
  let file = await open(path, "a", 0o600);
  await file.truncate(size);
  /** Part of a line may stand behind the last whole one. */
  let isTorn = false;
  let isNameDurable = false;

  return {
    size: () => size,
    /** Resolves when it is on the disk. When it rejects, it is taken out before the next. */
    async append(line: Line): Promise<void> {
      if (isTorn) await file.truncate(size);
      if (!isNameDurable) await syncFolder(path);
      [isTorn, isNameDurable] = [true, true];
      const bytes = encode([line]);
      await file.appendFile(bytes);
      await file.datasync();
      [size, isTorn] = [size + bytes.length, false];
    },
    /** Puts a file with these lines in its place: whole, or not at all. */
    async rewrite(lines: Iterable<Line>): Promise<void> {
      const bytes = encode(lines);
      const fresh = await writeBeside(path, bytes);
      await rename(`${path}.new`, path);
      const old = file;
      [file, size, isTorn, isNameDurable] = [fresh, bytes.length, false, false];
      await old.close();
    },
    close: () => file.close(),
  };
}

export type LinesFile = Awaited<ReturnType<typeof openLines>>;

function encode(lines: Iterable<Line>): Buffer {
  return Buffer.from([...lines].map((line) => `${JSON.stringify(line)}\n`).join(""));
}

async function writeBeside(path: string, bytes: Buffer): Promise<FileHandle> {
  const { O_APPEND, O_CREAT, O_TRUNC, O_WRONLY } = constants;
  const file = await open(`${path}.new`, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0o600);
  try {
    await file.writeFile(bytes);
    await file.datasync();
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** A name is only durable when its folder is. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(dirname(path), "r");
  await folder.sync().finally(() => folder.close());
}
