import type { Logger, LogRules } from "../../../core/index.js";
import { prune } from "./prune.js";
import type { PunchHole } from "./punch-hole.js";
import { archive, canPunch, finish, isRefilled, type LiveOutput, mark, openLive } from "./rotate.js";
import { type Layout, layoutOf, namesIn } from "./segments.js";

export interface RotateStepOptions {
  log: Logger;
  /** Ways to make holes in files, the best first. */
  punches: readonly PunchHole[];
  /** Called once when output cannot be rotated, in words. */
  onProblem(problem: string): void;
}

/** One output of a run, and what is known of it. */
export interface RotatedOutput extends LiveOutput {
  readonly agentId: string;
  readonly rules: LogRules;
  /** As in the layout, which the folder tells. */
  shift: number;
  base: number;
  /** The furthest that anybody has seen. */
  end: number;
  /** Whether every archive is a hole in the live file. */
  finished: boolean;
}

/** Brings the files of an output in order, a step at a time. */
export interface RotateStep {
  /** Finishes what was begun, takes note of a file that was emptied, or puts one archive away. */
  run(it: RotatedOutput): Promise<void>;
  /** False once it has turned out that nothing can be rotated. */
  canRotate(): boolean;
}

export function createRotateStep({ log, punches, onProblem }: RotateStepOptions): RotateStep {
  let punch: PunchHole | "none" | undefined;

  async function choosePunch(folder: string): Promise<PunchHole | "none"> {
    for (const it of punches) if (await canPunch(folder, it)) return it;
    onProblem(
      "output is not rotated: holes cannot be made in files here; install koffi or util-linux, or keep the folder on ext4, xfs, btrfs or tmpfs",
    );
    return "none";
  }

  async function readLayout(it: RotatedOutput): Promise<Layout> {
    const layout = layoutOf(await namesIn(it.folder), it.runId, it.stream);
    it.shift = layout.shift;
    it.base = layout.base;
    it.end = Math.max(it.end, layout.base);
    return layout;
  }

  async function noteEmptied(it: RotatedOutput) {
    await mark(it, it.end + 1);
    await readLayout(it);
    it.finished = true;
    const fields = { agent_id: it.agentId, run_id: it.runId, stream: it.stream };
    log.warn(fields, "an agent emptied its own output file: what had not been put away is gone");
  }

  return {
    canRotate: () => punch !== "none",
    async run(it) {
      const live = await openLive(it);
      // Gone with its folder, or no file any more: then there is nothing to be done.
      if (!live) return;
      try {
        punch ??= await choosePunch(it.folder);
        const layout = await readLayout(it);
        const end = layout.shift + (await live.stat()).size;
        const { maxSizeBytes, keep } = it.rules;
        if (end < it.end || (punch !== "none" && (await isRefilled(live, it, layout, it.finished)))) {
          await noteEmptied(it);
        } else if (punch !== "none") {
          // Until that is done nothing further may be put away.
          if (!it.finished) await finish(live, it, layout, punch);
          it.finished = end - layout.base < maxSizeBytes;
          if (it.finished) return;
          await archive(live, it, layout, { maxSizeBytes, copy: keep > 0 });
          await finish(live, it, await readLayout(it), punch);
          it.finished = true;
        }
      } finally {
        await live.close();
      }
      await prune(it.folder, it.rules.keep);
    },
  };
}
