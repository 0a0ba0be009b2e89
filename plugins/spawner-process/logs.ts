import { existsSync, readdirSync, watch } from "node:fs";
import { open } from "node:fs/promises";
import { type LogLine, type LogQuery, OpenStarryError } from "../../core/index.js";
import { logFile } from "./output.js";

type Stream = LogLine["stream"];
const STREAMS: readonly Stream[] = ["stdout", "stderr"];

const CHUNK_BYTES = 64 * 1024;
/** A longer line is handed out in pieces of this size, so that one line cannot fill the memory. */
const MAX_LINE_BYTES = 256 * 1024;

/** How far one run has been read. */
interface Position {
  runId: string;
  stdout: number;
  stderr: number;
}

/** The cursor after a line: `run_id:stdout_offset-stderr_offset`. */
function formatCursor({ runId, stdout, stderr }: Position): string {
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

/** Runs that have output, oldest first: their ids sort by age. */
function runsIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder).filter((name) => name.endsWith(".log"));
  return [...new Set(names.map((name) => name.split(".")[0] ?? ""))].sort();
}

/** Reads, and follows when asked to, the output files of one agent. */
export async function* readLogs(folder: string, query: LogQuery): AsyncGenerator<LogLine> {
  const streams = query.stream ? [query.stream] : STREAMS;
  const runs = runsIn(folder);
  const chosen = query.previous ? runs.at(-2) : runs.at(-1);
  let position: Position | undefined;
  if (query.cursor !== undefined) position = parseCursor(query.cursor);
  else if (chosen !== undefined) position = { runId: chosen, stdout: 0, stderr: 0 };
  if (position && query.cursor === undefined && query.tail !== undefined) {
    await skipToTail(folder, position, streams, query.tail);
  }
  if (position) yield* readFrom(folder, position, streams, !query.follow);
  if (!query.follow || query.previous) {
    // With a cursor of an older run, what came after it belongs to the answer.
    while (position && query.cursor !== undefined) {
      position = nextRun(folder, position);
      if (position) yield* readFrom(folder, position, streams, true);
    }
    return;
  }
  yield* follow(folder, position, streams, query.signal);
}

function nextRun(folder: string, position: Position): Position | undefined {
  const runId = runsIn(folder).find((it) => it > position.runId);
  return runId === undefined ? undefined : { runId, stdout: 0, stderr: 0 };
}

async function* follow(
  folder: string,
  start: Position | undefined,
  streams: readonly Stream[],
  signal: AbortSignal | undefined,
): AsyncGenerator<LogLine> {
  let position = start;
  let wake = () => {};
  let changed = true;
  const notice = () => {
    changed = true;
    wake();
  };
  // The folder tells of writes to its files; the timer is the net under it.
  const watcher = existsSync(folder) ? watch(folder, { persistent: false }, notice) : undefined;
  watcher?.on("error", () => {});
  const net = setInterval(notice, 1_000);
  net.unref();
  signal?.addEventListener("abort", notice, { once: true });
  try {
    while (!signal?.aborted) {
      changed = false;
      position ??= nextRun(folder, { runId: "", stdout: 0, stderr: 0 });
      const next = position && nextRun(folder, position);
      // A run that has a successor is over: its last line may lack a line end.
      if (position) yield* readFrom(folder, position, streams, next !== undefined);
      if (next) {
        position = next;
        continue;
      }
      if (!changed && !signal?.aborted) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    watcher?.close();
    clearInterval(net);
    signal?.removeEventListener("abort", notice);
  }
}

/** All whole lines after `position`, which moves along; with `partial` also what follows the last line end. */
async function* readFrom(
  folder: string,
  position: Position,
  streams: readonly Stream[],
  partial: boolean,
): AsyncGenerator<LogLine> {
  const { runId } = position;
  for (const stream of streams) {
    const file = await openLog(logFile(folder, runId, stream));
    if (!file) continue;
    try {
      let rest = Buffer.alloc(0);
      for (;;) {
        const chunk = Buffer.alloc(CHUNK_BYTES);
        const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, position[stream] + rest.length);
        rest = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
        const atEnd = bytesRead === 0;
        for (;;) {
          const end = rest.indexOf(10);
          const tooLong = end === -1 && rest.length >= MAX_LINE_BYTES;
          if (end === -1 && !tooLong && !(atEnd && partial && rest.length > 0)) break;
          const length = end === -1 ? rest.length : end;
          const bytes = rest.subarray(0, length);
          rest = rest.subarray(end === -1 ? length : length + 1);
          position[stream] += end === -1 ? length : length + 1;
          yield { run_id: runId, stream, bytes, cursor: formatCursor(position) };
        }
        if (atEnd) break;
      }
    } finally {
      await file.close();
    }
  }
}

/** Moves to where the last `lines` lines begin, of each stream so that both together are at most that many. */
async function skipToTail(
  folder: string,
  position: Position,
  streams: readonly Stream[],
  lines: number,
): Promise<void> {
  let left = lines;
  // What went to stderr is what people look for: it gets its lines first.
  for (const stream of [...streams].reverse()) {
    const found = await tailOffset(logFile(folder, position.runId, stream), left);
    position[stream] = found.offset;
    left -= found.lines;
  }
}

async function tailOffset(path: string, lines: number): Promise<{ offset: number; lines: number }> {
  const file = await openLog(path);
  if (!file) return { offset: 0, lines: 0 };
  try {
    const { size } = await file.stat();
    if (lines <= 0) return { offset: size, lines: 0 };
    const chunk = Buffer.alloc(CHUNK_BYTES);
    let found = 0;
    for (let end = size; end > 0; ) {
      const start = Math.max(0, end - CHUNK_BYTES);
      await file.read(chunk, 0, end - start, start);
      for (let index = end - start - 1; index >= 0; index--) {
        // The line end at the very end closes the last line; it does not begin another.
        if (chunk[index] !== 10 || start + index === size - 1) continue;
        found += 1;
        if (found === lines) return { offset: start + index + 1, lines };
      }
      end = start;
    }
    return { offset: 0, lines: size > 0 ? found + 1 : 0 };
  } finally {
    await file.close();
  }
}

async function openLog(path: string) {
  try {
    return await open(path, "r");
  } catch {
    return undefined;
  }
}
