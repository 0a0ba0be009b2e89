import { constants } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { PunchHole } from "./punch-hole.js";
import { archiveName, draftName, type Layout, liveName, openPlain, type Stream } from "./segments.js";

/** What is moved in one step: small enough to stay in a processor's cache, large enough to be few. */
const COPY_BYTES = 2 ** 20;
const HEAD_BYTES = 4_096;
const SEARCH_BYTES = 64 * 1024;
const PROBE_BYTES = 64 * 1024;
const LINE_END = 10;

export interface LiveOutput {
  readonly folder: string;
  readonly runId: string;
  readonly stream: Stream;
}

/** Opens the live file for reading and for making holes. */
export function openLive({ folder, runId, stream }: LiveOutput): Promise<FileHandle | undefined> {
  return openPlain(join(folder, liveName(runId, stream)), constants.O_RDWR);
}

/**
 * Puts the oldest bytes of a live file away, at most `maxSizeBytes` of them up to a line end; a line that
 * alone is longer is split. Answers the new base. Ends before any step without harm: until the archive has
 * its name nothing has happened, and from then on `finish` does the rest.
 *
 * 1. the bytes go to a draft, and to the disk; 2. the draft gets the archive's name: from here on they are
 * read there; 3. (`finish`) they become a hole in the live file. The agent goes on writing all the while.
 */
export async function archive(
  live: FileHandle,
  output: LiveOutput,
  { base, shift }: Pick<Layout, "base" | "shift">,
  { maxSizeBytes, copy }: { maxSizeBytes: number; copy: boolean },
): Promise<number> {
  const { folder, runId, stream } = output;
  const from = base - shift;
  const to = await cutOffset(live, from, from + maxSizeBytes);
  const draft = join(folder, draftName(runId, stream));
  try {
    const target = await open(draft, DRAFT_FLAGS, 0o600);
    try {
      // Where no archive is kept its name alone is needed: it tells where the live file begins.
      if (copy) await copyRange(live, target, from, to);
      await target.datasync();
    } finally {
      await target.close();
    }
    await rename(draft, join(folder, archiveName(runId, stream, from + shift, to + shift)));
  } catch (error) {
    await rm(draft, { force: true }).catch(() => {});
    throw error;
  }
  await syncFolder(folder);
  return to + shift;
}

const DRAFT_FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;

/** Makes a hole of what the newest archive holds. Whether that was done already does not matter. */
export async function finish(
  live: FileHandle,
  output: LiveOutput,
  layout: Layout,
  punch: PunchHole,
): Promise<void> {
  const newest = layout.archives.at(-1);
  if (!newest || newest.to <= layout.shift) return;
  // Emptied meanwhile: what is there now is something else.
  if ((await live.stat()).size < newest.to - layout.shift) return;
  const path = join(output.folder, liveName(output.runId, output.stream));
  await punch({ fd: live.fd, path }, newest.from - layout.shift, newest.to - newest.from);
}

/** Notes that the agent emptied its file: what is in it from now on counts from `offset`. */
export async function mark({ folder, runId, stream }: LiveOutput, offset: number): Promise<void> {
  const file = await open(join(folder, archiveName(runId, stream, offset, offset)), DRAFT_FLAGS, 0o600);
  await file.close();
  await syncFolder(folder);
}

/**
 * Whether the newest archive's place in the live file was filled again: the agent emptied the file and
 * printed more than before between two looks. Unless the hole is `known` to have been made, the very bytes
 * of the archive mean that it was not made yet.
 */
export async function isRefilled(
  live: FileHandle,
  { folder }: LiveOutput,
  { archives, shift }: Layout,
  known: boolean,
): Promise<boolean> {
  const newest = archives.at(-1);
  if (!newest || newest.to <= shift) return false;
  const length = Math.min(HEAD_BYTES, newest.to - newest.from);
  const head = await readHead(live, newest.from - shift, length);
  if (head.every((byte) => byte === 0)) return false;
  if (known) return true;
  const file = await openPlain(join(folder, newest.name));
  try {
    const archived = file && (await readHead(file, 0, length));
    return archived !== undefined && archived.length > 0 && !archived.equals(head);
  } finally {
    await file?.close();
  }
}

async function readHead(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
  return buffer.subarray(0, bytesRead);
}

/** Whether holes can be made in files of this folder. Rejects when that cannot be tried, as on a full disk. */
export async function canPunch(folder: string, punch: PunchHole): Promise<boolean> {
  const path = join(folder, ".holes.tmp");
  const file = await open(path, DRAFT_FLAGS, 0o600);
  try {
    await file.write(Buffer.alloc(PROBE_BYTES, 1));
    return await punch({ fd: file.fd, path }, 0, PROBE_BYTES).then(
      () => true,
      () => false,
    );
  } finally {
    await file.close();
    await rm(path, { force: true });
  }
}

/** After the last line end in the range; its end when there is none. */
async function cutOffset(file: FileHandle, from: number, to: number): Promise<number> {
  const buffer = Buffer.alloc(SEARCH_BYTES);
  for (let upper = to; upper > from; upper -= SEARCH_BYTES) {
    const lower = Math.max(from, upper - SEARCH_BYTES);
    const { bytesRead } = await file.read(buffer, 0, upper - lower, lower);
    const at = buffer.subarray(0, bytesRead).lastIndexOf(LINE_END);
    if (at !== -1) return lower + at + 1;
  }
  return to;
}

async function copyRange(source: FileHandle, target: FileHandle, from: number, to: number): Promise<void> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(COPY_BYTES, to - from));
  for (let offset = from; offset < to; ) {
    const { bytesRead } = await source.read(buffer, 0, Math.min(buffer.length, to - offset), offset);
    if (bytesRead === 0) throw new Error("the output file became shorter while it was put away");
    for (let written = 0; written < bytesRead; ) {
      written += (await target.write(buffer, written, bytesRead - written)).bytesWritten;
    }
    offset += bytesRead;
  }
}

/** So that a new name outlives the machine's fall. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
