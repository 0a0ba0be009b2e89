import type { LogLine } from "../../../core/index.js";
import { linesFrom } from "./lines.js";
import { openOutput, type Seen } from "./output-reader.js";
import { formatCursor, type Position } from "./positions.js";
import type { Stream } from "./segments.js";

export interface ReadOptions {
  streams: readonly Stream[];
  /** What follows the last line end is handed out too. */
  unfinished: boolean;
  /** No line that begins there or later. */
  stopAt?: Partial<Record<Stream, number>>;
  seen: Seen;
}

/** The lines of one run after `position`, which moves along. */
export async function* readRun(
  folder: string,
  position: Position,
  { streams, unfinished, stopAt = {}, seen }: ReadOptions,
): AsyncGenerator<LogLine> {
  const { runId } = position;
  for (const stream of streams) {
    const output = openOutput(folder, runId, stream, seen);
    try {
      for await (const { start, next, ...line } of linesFrom(output, position[stream], unfinished)) {
        if (start >= (stopAt[stream] ?? Number.POSITIVE_INFINITY)) break;
        position[stream] = next;
        yield { run_id: runId, stream, ...line, cursor: formatCursor(position) };
      }
    } finally {
      await output.close();
    }
  }
}
