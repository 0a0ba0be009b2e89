import { existsSync, type FSWatcher, watch } from "node:fs";
import type { LogLine } from "../../../core/index.js";
import type { Seen } from "./output-reader.js";
import { type Position, startOf } from "./positions.js";
import { readRun } from "./read-run.js";
import { namesIn, runsIn, type Stream } from "./segments.js";

/** Whole lines from `start` on, over runs, as they are printed, until `signal` aborts. */
export async function* follow(
  folder: string,
  start: Position | undefined,
  streams: readonly Stream[],
  seen: Seen,
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
  const watcher = watchFolder(folder, notice);
  const net = setInterval(notice, 1_000);
  net.unref();
  signal?.addEventListener("abort", notice, { once: true });
  try {
    while (!signal?.aborted) {
      changed = false;
      position ??= await nextRun(folder, "");
      const next = position && (await nextRun(folder, position.runId));
      // A run that has a successor is over: its last line may lack a line end.
      if (position) yield* readRun(folder, position, { streams, unfinished: next !== undefined, seen });
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

function watchFolder(folder: string, notice: () => void): FSWatcher | undefined {
  if (!existsSync(folder)) return undefined;
  try {
    return watch(folder, { persistent: false }, notice).on("error", () => {});
  } catch {
    // Out of watches or descriptors.
    return undefined;
  }
}

async function nextRun(folder: string, runId: string): Promise<Position | undefined> {
  const next = runsIn(await namesIn(folder)).find((it) => it > runId);
  return next === undefined ? undefined : startOf(next);
}
