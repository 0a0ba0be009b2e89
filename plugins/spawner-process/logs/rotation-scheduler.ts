import { lstatSync } from "node:fs";
import { join } from "node:path";
import type { Clock, LogRules } from "../../../core/index.js";
import { prune } from "./prune.js";
import { createRotateStep, type RotatedOutput, type RotateStepOptions } from "./rotate-step.js";
import { isGone, layoutOf, liveName, namesIn, type Stream } from "./segments.js";
import { appendEntry, readIndex } from "./time-index.js";

export interface RotationSchedulerOptions extends RotateStepOptions {
  clock: Clock;
}

export interface KeptRun {
  readonly agentId: string;
  readonly runId: string;
  /** The agent's log folder. */
  readonly folder: string;
  readonly streams: readonly Stream[];
  readonly rules: LogRules;
}

/** Keeps the output of live runs within its bounds, and remembers when it was printed. */
export interface RotationScheduler {
  /**
   * Looks after a run, new or taken over. Call what is returned when it is over; that resolves when its
   * output is in order.
   */
  keep(run: KeptRun): () => Promise<void>;
  /** Somebody has read so far: a file that is shorter was emptied. */
  seen(runId: string, stream: Stream, end: number): void;
  /** Lets go of a folder that is about to be removed. */
  forget(folder: string): Promise<void>;
  /** Resolves when nothing is being written any more. */
  release(): Promise<void>;
}

/** Files that fill quickly are looked at so often, idle ones so seldom; between them, as they grow. */
const SHORTEST_PAUSE_MS = 100;
const PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 4_000;
/** After something went wrong, such as a full disk. */
const RETRY_MS = 10_000;
/** An entry of the time index comes after so long, or after so many bytes and a second. */
const ENTRY_MS = 10_000;
const ENTRY_BYTES = 256 * 1024;

interface Watched extends RotatedOutput {
  readonly path: string;
  /** How far it went at the last look. */
  lookedEnd: number;
  lookedAt: number;
  dueAt: number;
  pauseMs: number;
  entry: { offset: number; at: number; count: number };
  /** Something is under way for it; it is not looked at meanwhile. */
  busy: boolean;
  over: boolean;
  dropped: boolean;
  /** Called then. */
  onDropped(): void;
  complained: boolean;
}

export function createRotationScheduler(options: RotationSchedulerOptions): RotationScheduler {
  const { clock, log } = options;
  const watched = new Map<string, Watched>();
  /** One job at a time, so that rotation takes one core's part at most and no file is pruned as it is read. */
  let queue = Promise.resolve();
  let cancelTimer = () => {};
  let released = false;
  const rotateStep = createRotateStep(options);

  function enqueue(job: () => Promise<void>): Promise<void> {
    queue = queue.then(async () => {
      if (!released) await job();
    });
    return queue;
  }

  /** Something to be done for one output, out of its turn. */
  function work(it: Watched, job: () => Promise<void>): void {
    it.busy = true;
    void enqueue(async () => {
      try {
        if (it.dropped) return;
        await job();
        it.complained = false;
        it.dueAt = clock.monotonic();
      } catch (err) {
        if (isGone(err)) drop(it);
        else complain(it, err);
        it.dueAt = clock.monotonic() + RETRY_MS;
      } finally {
        it.busy = false;
        if (it.over && !it.dropped) look(it);
        schedule();
      }
    });
  }

  function complain(it: Watched, err: unknown) {
    const fields = { agent_id: it.agentId, run_id: it.runId, stream: it.stream, err };
    if (!it.complained)
      log.error(fields, "output cannot be put away; it stays in its file and is tried again");
    it.complained = true;
  }

  function drop(it: Watched) {
    it.dropped = true;
    it.onDropped();
    watched.delete(keyOf(it.runId, it.stream));
  }

  /** One timer for all. */
  function schedule() {
    cancelTimer();
    if (released) return;
    const idle = [...watched.values()].filter(({ busy }) => !busy);
    if (idle.length === 0) return;
    const dueAt = Math.min(...idle.map((it) => it.dueAt));
    cancelTimer = clock.after(Math.max(0, dueAt - clock.monotonic()), lookAtAll);
  }

  function lookAtAll() {
    const now = clock.monotonic();
    for (const it of watched.values()) if (!it.busy && it.dueAt <= now) look(it);
    schedule();
  }

  /** The cheap part: one lstat(2). */
  function look(it: Watched) {
    const size = sizeOf(it.path);
    if (size === undefined || (it.over && it.complained)) return drop(it);
    const now = clock.monotonic();
    const end = it.shift + size;
    const grown = end - it.lookedEnd;
    const room = it.base + it.rules.maxSizeBytes - end;
    it.pauseMs =
      grown > 0
        ? Math.min(PAUSE_MS, Math.max(SHORTEST_PAUSE_MS, (room * (now - it.lookedAt)) / grown / 2))
        : Math.min(LONGEST_PAUSE_MS, it.pauseMs * 2);
    it.lookedAt = now;
    it.lookedEnd = end;
    // Together with the others: idle ones wake the daemon once a second at most, however many they are.
    const step = it.pauseMs >= PAUSE_MS ? PAUSE_MS : SHORTEST_PAUSE_MS;
    it.dueAt = Math.ceil((now + it.pauseMs) / step) * step;
    if (end < it.end) return work(it, () => rotateStep.run(it));
    it.end = end;
    noteTime(it, now);
    if (room <= 0 && rotateStep.canRotate()) return work(it, () => rotateStep.run(it));
    if (it.over) drop(it);
  }

  function noteTime(it: Watched, now: number) {
    const { entry } = it;
    const bytes = it.end - entry.offset;
    const ms = now - entry.at;
    if (bytes === 0 || !(it.over || ms >= ENTRY_MS || (ms >= PAUSE_MS && bytes >= ENTRY_BYTES))) return;
    const next = { offset: it.end, timeMs: clock.now() };
    entry.offset = it.end;
    entry.at = now;
    void enqueue(async () => {
      // Without it the answer to "since when" is only coarser.
      entry.count = await appendEntry(it.folder, it.runId, it.stream, next, entry.count).catch(
        () => entry.count,
      );
    });
  }

  async function load(it: Watched) {
    await prune(it.folder, it.rules.keep);
    const entries = await readIndex(it.folder, it.runId, it.stream);
    const { base, shift } = layoutOf(await namesIn(it.folder), it.runId, it.stream);
    const known = entries.at(-1)?.offset ?? 0;
    Object.assign(it, { base, shift, finished: base === shift, lookedEnd: base });
    it.end = Math.max(base, known, it.end);
    it.entry = { offset: known, at: Number.NEGATIVE_INFINITY, count: entries.length };
    if (!it.finished) await rotateStep.run(it);
  }

  return {
    keep({ agentId, runId, folder, streams, rules: given }) {
      const now = clock.monotonic();
      // The record of a run that an older version started names no size.
      const rules = { ...given, maxSizeBytes: given.maxSizeBytes ?? Number.POSITIVE_INFINITY };
      const outputs = streams.map(
        (stream): Watched => ({
          ...{ agentId, runId, folder, stream, rules, path: join(folder, liveName(runId, stream)) },
          ...{
            shift: 0,
            base: 0,
            end: 0,
            lookedEnd: 0,
            finished: false,
            lookedAt: now,
            dueAt: now,
            pauseMs: PAUSE_MS,
          },
          ...{ entry: { offset: 0, at: now, count: 0 } },
          ...{ busy: false, over: false, dropped: false, onDropped() {}, complained: false },
        }),
      );
      for (const it of outputs) {
        watched.set(keyOf(runId, it.stream), it);
        work(it, () => load(it));
      }
      return async () => {
        const kept = outputs.filter(({ dropped }) => !dropped);
        const inOrder = kept.map(
          (it) =>
            new Promise<void>((resolve) => {
              it.onDropped = resolve;
              it.over = true;
              if (!it.busy) look(it);
            }),
        );
        await Promise.all(inOrder);
        await queue;
      };
    },
    seen(runId, stream, end) {
      const it = watched.get(keyOf(runId, stream));
      if (!it || it.busy) return;
      it.end = Math.max(it.end, end);
      if (it.shift + (sizeOf(it.path) ?? 0) < it.end) {
        look(it);
        schedule();
      }
    },
    async forget(folder) {
      for (const it of [...watched.values()]) if (it.folder === folder) drop(it);
      await queue;
    },
    release() {
      released = true;
      cancelTimer();
      return queue;
    },
  };
}

const keyOf = (runId: string, stream: Stream) => `${runId}.${stream}`;

function sizeOf(path: string): number | undefined {
  try {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    return stat?.isFile() ? stat.size : undefined;
  } catch {
    return undefined;
  }
}
