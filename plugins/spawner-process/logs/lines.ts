import type { LogLine } from "../../../core/index.js";
import type { OutputReader } from "./output-reader.js";

const CHUNK_BYTES = 64 * 1024;
/** A longer line is handed out in pieces of this size, so that one line cannot fill the memory. */
const MAX_LINE_BYTES = 256 * 1024;
/** No more than this is searched backwards: what lies further back is no tail any more. */
const MAX_TAIL_BYTES = 16 * 2 ** 20;
const LINE_END = 10;
const NOTHING = Buffer.alloc(0);

export interface OutputLine extends Pick<LogLine, "bytes" | "partial" | "gap"> {
  readonly start: number;
  /** Where the next one begins. */
  readonly next: number;
}

/** All whole lines from `offset` on; with `unfinished` also what follows the last line end. */
export async function* linesFrom(
  output: OutputReader,
  offset: number,
  unfinished: boolean,
): AsyncGenerator<OutputLine> {
  const buffer = Buffer.alloc(CHUNK_BYTES);
  let start = offset;
  let rest: Buffer = NOTHING;
  let gap: LogLine["gap"];

  function take(length: number, skip: number, partial: boolean): OutputLine {
    const bytes = rest.subarray(0, length);
    const line = { bytes, start, next: start + length + skip };
    const marks = { ...(partial ? { partial } : {}), ...(gap === undefined ? {} : { gap }) };
    rest = rest.subarray(length + skip);
    start = line.next;
    gap = undefined;
    return { ...line, ...marks };
  }

  for (;;) {
    const chunk = await output.read(start + rest.length, buffer);
    if (chunk.gap !== undefined) {
      // The beginning of a line whose end is gone.
      if (rest.length > 0) yield take(rest.length, 0, true);
      start = chunk.offset;
      gap = chunk.gap;
    }
    if (chunk.bytes.length === 0) break;
    rest = Buffer.concat([rest, chunk.bytes]);
    for (let end = rest.indexOf(LINE_END); end !== -1; end = rest.indexOf(LINE_END))
      yield take(end, 1, false);
    if (rest.length >= MAX_LINE_BYTES) yield take(rest.length, 0, true);
  }
  if (unfinished && rest.length > 0) yield take(rest.length, 0, true);
}

/** Where the last `lines` lines before `end` begin, and how many there are. */
export async function tailStart(
  output: OutputReader,
  { start, end }: { start: number; end: number },
  lines: number,
): Promise<{ offset: number; lines: number }> {
  if (lines <= 0 || end <= start) return { offset: end, lines: 0 };
  let found = 0;
  for await (const at of lineEndsBefore(output, Math.max(start, end - MAX_TAIL_BYTES), end)) {
    // The line end at the very end closes the last line; it does not begin another.
    if (at === end - 1) continue;
    found += 1;
    if (found === lines) return { offset: at + 1, lines };
  }
  return { offset: Math.max(start, end - MAX_TAIL_BYTES), lines: found + 1 };
}

/** Where the line begins that the byte at `offset` belongs to. */
export async function lineStart(output: OutputReader, start: number, offset: number): Promise<number> {
  for await (const at of lineEndsBefore(output, start, offset)) return at + 1;
  return Math.min(start, offset);
}

/** Line ends before `end`, the last one first. */
async function* lineEndsBefore(output: OutputReader, start: number, end: number): AsyncGenerator<number> {
  for (let upper = end; upper > start; ) {
    const lower = Math.max(start, upper - CHUNK_BYTES);
    const chunk = await readRange(output, lower, upper);
    for (
      let at = chunk.lastIndexOf(LINE_END);
      at !== -1;
      at = at === 0 ? -1 : chunk.lastIndexOf(LINE_END, at - 1)
    ) {
      yield upper - chunk.length + at;
    }
    // What lies further back is gone.
    if (chunk.length < upper - lower) return;
    upper = lower;
  }
}

/** The bytes up to `upper` that are still there, from `lower` on at most. */
export async function readRange(output: OutputReader, lower: number, upper: number): Promise<Buffer> {
  const buffer = Buffer.alloc(upper - lower);
  let whole = NOTHING;
  for (let offset = lower; offset < upper; ) {
    const chunk = await output.read(offset, buffer);
    if (chunk.bytes.length === 0 || chunk.offset >= upper) break;
    const wanted = chunk.bytes.subarray(0, upper - chunk.offset);
    whole = Buffer.concat(chunk.gap === undefined ? [whole, wanted] : [wanted]);
    offset = chunk.offset + wanted.length;
  }
  return whole;
}
