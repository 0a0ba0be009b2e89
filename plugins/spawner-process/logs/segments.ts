import { constants } from "node:fs";
import { type FileHandle, open, readdir } from "node:fs/promises";
import type { LogLine } from "../../../core/index.js";

export type Stream = LogLine["stream"];
export const STREAMS: readonly Stream[] = ["stdout", "stderr"];

/**
 * What a run prints to a stream is one row of bytes, counted from 0, that lies in several files. Their
 * names tell where each part belongs, and nothing else does, so that there is no second record to disagree:
 *
 * - `RUN.STREAM.log` is the live file, which the agent appends to.
 * - `RUN.STREAM.FROM-TO.log` is an archive: the bytes FROM up to TO. In the live file they are a hole, or
 *   about to become one; that file counts from the highest TO on.
 * - The same with TO equal to FROM is a mark: the agent emptied its file, whose first byte is FROM since.
 */
export interface Segment {
  readonly name: string;
  readonly runId: string;
  readonly stream: Stream;
  /** Absent: the live file. */
  readonly range?: { readonly from: number; readonly to: number };
}

export interface Archive {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

/** Where the bytes of one stream of one run lie. */
export interface Layout {
  /** Oldest first. */
  readonly archives: readonly Archive[];
  /** The newest mark: where the first byte of the live file belongs. 0 without one. */
  readonly shift: number;
  /** What counts of the live file begins here. */
  readonly base: number;
}

export const liveName = (runId: string, stream: Stream) => `${runId}.${stream}.log`;
export const archiveName = (runId: string, stream: Stream, from: number, to: number) =>
  `${runId}.${stream}.${from}-${to}.log`;
/** What is about to become an archive. */
export const draftName = (runId: string, stream: Stream) => `${runId}.${stream}.tmp`;
export const indexName = (runId: string, stream: Stream) => `${runId}.${stream}.index`;

const SEGMENT = /^([^.]+)\.(stdout|stderr)(?:\.(\d{1,15})-(\d{1,15}))?\.log$/;

export function parseSegment(name: string): Segment | undefined {
  const [, runId, stream, from, to] = SEGMENT.exec(name) ?? [];
  if (runId === undefined) return undefined;
  const range = from === undefined ? {} : { range: { from: Number(from), to: Number(to) } };
  return { name, runId, stream: stream as Stream, ...range };
}

export function layoutOf(names: readonly string[], runId: string, stream: Stream): Layout {
  const prefix = `${runId}.${stream}.`;
  const ranges = names
    .filter((name) => name.startsWith(prefix))
    .flatMap((name) => {
      const range = parseSegment(name)?.range;
      return range ? [{ name, ...range }] : [];
    })
    .sort((a, b) => a.to - b.to);
  const marks = ranges.filter(({ from, to }) => from === to);
  return {
    archives: ranges.filter(({ from, to }) => from < to),
    shift: marks.at(-1)?.to ?? 0,
    base: ranges.at(-1)?.to ?? 0,
  };
}

/** Runs that have output, oldest first: their ids sort by age. */
export function runsIn(names: readonly string[]): string[] {
  return [...new Set(names.flatMap((name) => parseSegment(name)?.runId ?? []))].sort();
}

/** The names in a log folder; none where there is no folder. */
export async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}

export function isGone(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
}

/** Opens a plain file without ever blocking; `undefined` for anything else, links included. */
export async function openPlain(path: string, mode = constants.O_RDONLY): Promise<FileHandle | undefined> {
  let file: FileHandle;
  try {
    file = await open(path, mode | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (isGone(error) || ["ELOOP", "ENXIO"].includes((error as NodeJS.ErrnoException).code ?? ""))
      return undefined;
    throw error;
  }
  if ((await file.stat()).isFile()) return file;
  await file.close();
  return undefined;
}
