import type { LogLine, LogQuery } from "../../../core/index.js";
import { follow } from "./follow.js";
import type { Seen } from "./output-reader.js";
import { findEnd, findStart } from "./positions.js";
import { readRun } from "./read-run.js";
import { namesIn, STREAMS } from "./segments.js";

/** Reads, and follows when asked to, the output files of one agent. */
export async function* readLogs(path: string, query: LogQuery, seen: Seen): AsyncGenerator<LogLine> {
  const streams = query.stream ? [query.stream] : STREAMS;
  const folder = { path, names: await namesIn(path), seen };
  const following = query.follow === true && !query.previous;
  let { positions, gap } = await findStart(folder, query, streams);
  const last = positions.at(-1);
  for (const position of positions) {
    if (following && position === last) break;
    const stopAt = await findEnd(folder, position.runId, streams, query.until);
    for await (const line of readRun(path, position, { streams, unfinished: true, stopAt, seen })) {
      yield gap === undefined ? line : { ...line, gap };
      gap = undefined;
    }
  }
  if (!following) return;
  for await (const line of follow(path, last, streams, seen, query.signal)) {
    yield gap === undefined ? line : { ...line, gap };
    gap = undefined;
  }
}
