import { type LogQuery, OpenStarryError, timeOfUuidv7 } from "../../../core/index.js";
import { shareTail } from "../../kit/tail-share.js";
import { lineStart, tailStart } from "./lines.js";
import { openOutput, type Seen } from "./output-reader.js";
import { runsIn, type Stream } from "./segments.js";
import { offsetSince, offsetUntil, readIndex } from "./time-index.js";

/** How far one run has been read. */
export interface Position {
  runId: string;
  stdout: number;
  stderr: number;
}

export const startOf = (runId: string): Position => ({ runId, stdout: 0, stderr: 0 });

/** The cursor after a line: `run_id:stdout_offset-stderr_offset`. */
export function formatCursor({ runId, stdout, stderr }: Position): string {
  return `${runId}:${stdout}-${stderr}`;
}

function parseCursor(cursor: string): Position {
  const match = /^([0-9a-f-]{36}):(\d{1,15})-(\d{1,15})$/.exec(cursor);
  if (!match) {
    throw new OpenStarryError("input_invalid", {
      detail: "cursor is not one that was handed out",
      hint: "take it from next_cursor or from a line, unchanged",
    });
  }
  return { runId: match[1] ?? "", stdout: Number(match[2]), stderr: Number(match[3]) };
}

export interface Folder {
  readonly path: string;
  readonly names: readonly string[];
  readonly seen: Seen;
}

/** Where to begin in which runs, oldest first. `gap`: the run of the cursor is not there any more. */
export async function findStart(
  folder: Folder,
  query: LogQuery,
  streams: readonly Stream[],
): Promise<{ positions: Position[]; gap?: "pruned" }> {
  const runs = runsIn(folder.names);
  if (query.cursor !== undefined) {
    const position = parseCursor(query.cursor);
    if (query.previous) return { positions: runs.includes(position.runId) ? [position] : [] };
    const later = runs.filter((runId) => runId > position.runId).map(startOf);
    if (runs.includes(position.runId) || later.length === 0) return { positions: [position, ...later] };
    return { positions: later, gap: "pruned" };
  }
  const positions = chooseRuns(runs, query).map(startOf);
  const { since, tail } = query;
  if (since !== undefined) await Promise.all(positions.map((it) => skipToTime(folder, it, streams, since)));
  return { positions: tail === undefined ? positions : await skipToTail(folder, positions, streams, query) };
}

function chooseRuns(runs: readonly string[], { previous, since, until }: LogQuery): string[] {
  if (previous) return runs.slice(-2, -1);
  const begun = runs.filter((runId) => until === undefined || timeOfUuidv7(runId) <= until);
  if (since === undefined) return begun.slice(-1);
  // A run whose successor had begun by then was over.
  return begun.filter((_, index) => index === begun.length - 1 || timeOfUuidv7(begun[index + 1]) > since);
}

/** Moves to what was printed since then; to a line's beginning, so that nothing is left out. */
async function skipToTime(folder: Folder, position: Position, streams: readonly Stream[], since: number) {
  for (const stream of streams) {
    const offset = offsetSince(await readIndex(folder.path, position.runId, stream), since);
    if (offset === 0) continue;
    const output = openOutput(folder.path, position.runId, stream, folder.seen);
    try {
      const { start, end } = await output.extent();
      position[stream] = await lineStart(output, start, Math.min(offset, end));
    } finally {
      await output.close();
    }
  }
}

/** Where to stop in each stream of a run. */
export async function findEnd(
  folder: Folder,
  runId: string,
  streams: readonly Stream[],
  until: number | undefined,
): Promise<Partial<Record<Stream, number>>> {
  if (until === undefined) return {};
  const ends = streams.map(async (stream) => [
    stream,
    offsetUntil(await readIndex(folder.path, runId, stream), until),
  ]);
  return Object.fromEntries(await Promise.all(ends)) as Partial<Record<Stream, number>>;
}

/** Moves to where the last lines begin, of all streams and runs together; runs before those are left out. */
async function skipToTail(
  folder: Folder,
  positions: readonly Position[],
  streams: readonly Stream[],
  { tail = 0, until }: LogQuery,
): Promise<Position[]> {
  let left = tail;
  const chosen: Position[] = [];
  for (const position of [...positions].reverse()) {
    const ends = await findEnd(folder, position.runId, streams, until);
    const has = { stdout: 0, stderr: 0 };
    for (const stream of streams) has[stream] = (await findTail(folder, position, stream, ends, left)).lines;
    const shares = shareTail(has, left);
    for (const stream of streams) {
      const found = await findTail(folder, position, stream, ends, shares[stream]);
      position[stream] = found.offset;
      left -= found.lines;
    }
    chosen.unshift(position);
    if (left <= 0) break;
  }
  return chosen;
}

/** Where the last lines of one stream of a run begin, from its position on. */
async function findTail(
  folder: Folder,
  position: Position,
  stream: Stream,
  ends: Partial<Record<Stream, number>>,
  lines: number,
): Promise<{ offset: number; lines: number }> {
  const output = openOutput(folder.path, position.runId, stream, folder.seen);
  try {
    const { start, end } = await output.extent();
    const range = { start: Math.max(start, position[stream]), end: Math.min(end, ends[stream] ?? end) };
    return await tailStart(output, range, lines);
  } finally {
    await output.close();
  }
}
