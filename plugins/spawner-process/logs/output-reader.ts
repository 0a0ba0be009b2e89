import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { LogLine } from "../../../core/index.js";
import {
  type Archive,
  type Layout,
  layoutOf,
  liveName,
  namesIn,
  openPlain,
  type Stream,
} from "./segments.js";

export interface Chunk {
  /** Where the bytes begin; later than what was asked for where that is gone. */
  readonly offset: number;
  /** None at the end. They lie in the buffer that was given. */
  readonly bytes: Buffer;
  /** Why what was asked for is gone. */
  readonly gap?: NonNullable<LogLine["gap"]>;
}

/** What one stream of one run printed, over all its files, by offset. */
export interface OutputReader {
  read(offset: number, into: Buffer): Promise<Chunk>;
  /** From the first byte that is still there up to the end. */
  extent(): Promise<{ start: number; end: number }>;
  close(): Promise<void>;
}

/** Told how far a live file was read, whenever it was; 0 when there was nothing to read. */
export type Seen = (runId: string, stream: Stream, end: number) => void;

/** Reads while output is put away: what is a hole in the live file already is read from its archive. */
export function openOutput(folder: string, runId: string, stream: Stream, seen: Seen): OutputReader {
  const live = join(folder, liveName(runId, stream));
  let layout: Layout | undefined;
  /** Kept open, so that an archive that is cleared away meanwhile can be read to its end. */
  let opened: { path: string; file: FileHandle } | undefined;

  async function look(): Promise<Layout> {
    layout = layoutOf(await namesIn(folder), runId, stream);
    return layout;
  }

  async function fileAt(path: string): Promise<FileHandle | undefined> {
    if (opened?.path === path) return opened.file;
    await close();
    const file = await openPlain(path);
    if (file) opened = { path, file };
    return file;
  }

  async function close() {
    const file = opened?.file;
    opened = undefined;
    await file?.close();
  }

  async function readAt(path: string, position: number, into: Buffer, length: number): Promise<Buffer> {
    const file = await fileAt(path);
    if (!file) return into.subarray(0, 0);
    const { bytesRead } = await file.read(into, 0, length, position);
    return into.subarray(0, bytesRead);
  }

  async function readArchive({ name, from, to }: Archive, offset: number, into: Buffer): Promise<Buffer> {
    return readAt(join(folder, name), offset - from, into, Math.min(into.length, to - offset));
  }

  async function read(asked: number, into: Buffer): Promise<Chunk> {
    let offset = asked;
    for (;;) {
      const known = layout ?? (await look());
      const archive = known.archives.find(({ to }) => offset < to);
      if (archive) {
        const at = Math.max(offset, archive.from);
        const bytes = await readArchive(archive, at, into);
        if (bytes.length > 0) return chunkOf(asked, at, bytes, known);
        // Emptied, or cleared away since the folder was looked at.
        offset = archive.to;
        await look();
        continue;
      }
      offset = Math.max(offset, known.base);
      const bytes = await readAt(live, offset - known.shift, into, into.length);
      const now = await look();
      // Put away while it was read: that may have been the hole already.
      if (now.base !== known.base) continue;
      seen(runId, stream, bytes.length > 0 ? offset + bytes.length : 0);
      return chunkOf(asked, offset, bytes, known);
    }
  }

  return {
    read,
    async extent() {
      const { archives, base, shift } = await look();
      const size = (await (await fileAt(live))?.stat())?.size ?? 0;
      return { start: archives[0]?.from ?? base, end: Math.max(base, shift + size) };
    },
    close,
  };
}

function chunkOf(asked: number, offset: number, bytes: Buffer, { shift }: Layout): Chunk {
  if (offset === asked) return { offset, bytes };
  return { offset, bytes, gap: asked < shift && shift <= offset ? "truncated" : "pruned" };
}
