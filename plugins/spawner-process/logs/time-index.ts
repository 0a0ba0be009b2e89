import { constants } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { indexName, openPlain, type Stream } from "./segments.js";

/**
 * When how much of a stream was there: a sparse index beside the output, so that `since` and `until` need
 * not read it. An entry is a line end, then `OFFSET TIME SUM`: up to OFFSET was printed by TIME
 * (milliseconds since the epoch), the rest not before. Half an entry, as a full disk or a crash leaves it,
 * stays on a line of its own, and its sum is wrong. What is damaged is left out: then the answer is only coarser.
 */
export interface IndexEntry {
  readonly offset: number;
  readonly timeMs: number;
}

/** Over so many, every second one goes: the index stays below a megabyte. */
const MOST_ENTRIES = 20_000;
const MAX_INDEX_BYTES = 4 * 2 ** 20;
const ENTRY = /^(\d{1,15}) (\d{1,14}) (\d{8})$/;

/** Eight digits, so that one that lacks some is known. */
const sumOf = ({ offset, timeMs }: IndexEntry) => 10_000_000 + ((offset * 7 + timeMs) % 9_999_991);
const textOf = (entry: IndexEntry) => `\n${entry.offset} ${entry.timeMs} ${sumOf(entry)}`;

export async function readIndex(folder: string, runId: string, stream: Stream): Promise<IndexEntry[]> {
  const file = await openPlain(join(folder, indexName(runId, stream)));
  if (!file) return [];
  try {
    const { size } = await file.stat();
    if (size > MAX_INDEX_BYTES) return [];
    return parse((await file.readFile()).toString("latin1"));
  } finally {
    await file.close();
  }
}

function parse(text: string): IndexEntry[] {
  const entries: IndexEntry[] = [];
  for (const line of text.split("\n")) {
    const [, offset, timeMs, sum] = (ENTRY.exec(line) ?? []).map(Number);
    if (offset === undefined || timeMs === undefined || sum !== sumOf({ offset, timeMs })) continue;
    if (offset >= (entries.at(-1)?.offset ?? 0)) entries.push({ offset, timeMs });
  }
  return entries;
}

/** Adds an entry; `count` is how many there are. Answers how many there are now. */
export async function appendEntry(
  folder: string,
  runId: string,
  stream: Stream,
  entry: IndexEntry,
  count: number,
): Promise<number> {
  const path = join(folder, indexName(runId, stream));
  if (count >= MOST_ENTRIES) {
    const entries = (await readIndex(folder, runId, stream)).filter((_, index) => index % 2 === 1);
    await replace(path, [...entries, entry].map(textOf).join(""));
    return entries.length + 1;
  }
  await write(path, constants.O_APPEND, textOf(entry));
  return count + 1;
}

async function replace(path: string, text: string): Promise<void> {
  const draft = `${path}.tmp`;
  try {
    await write(draft, constants.O_TRUNC, text);
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}

async function write(path: string, how: number, text: string): Promise<void> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW | how, 0o600);
    await file.writeFile(text);
  } finally {
    await file?.close();
  }
}

/** Where to begin so that nothing is left out that was printed at `sinceMs` or later. */
export function offsetSince(entries: readonly IndexEntry[], sinceMs: number): number {
  // The first later one ends it: the clock may have been set back after that.
  const later = entries.findIndex(({ timeMs }) => timeMs >= sinceMs);
  return (later === -1 ? entries.at(-1) : entries[later - 1])?.offset ?? 0;
}

/** Where to end so that nothing is left out that was printed by `untilMs`; infinite when nothing is known. */
export function offsetUntil(entries: readonly IndexEntry[], untilMs: number): number {
  const last = entries.findLastIndex(({ timeMs }) => timeMs <= untilMs);
  return entries[last + 1]?.offset ?? Number.POSITIVE_INFINITY;
}
