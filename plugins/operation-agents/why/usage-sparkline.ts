import { z } from "zod";
import { rfc3339 } from "../../../core/index.js";
import { type HistoryPoint, thinOut } from "../sample-history.js";

const sparkline = z.string().meta({
  description: "Oldest first, at most 40 of ▁▂▃▄▅▆▇█: the lowest block is zero, the highest the maximum.",
});

/** The resource usage of one run, as sparklines with their figures. */
export const usageSchema = z
  .object({
    run_id: z.string(),
    since: z.string().meta({ description: "Time of the oldest sample that is kept." }),
    until: z.string(),
    samples: z.int(),
    memory: z.object({
      sparkline,
      min_bytes: z.int(),
      max_bytes: z.int(),
      last_bytes: z.int(),
    }),
    cpu: z.object({
      sparkline,
      min_percent: z.number(),
      max_percent: z.number(),
      last_percent: z.number(),
    }),
  })
  .meta({ id: "Curve" });
export type Usage = z.output<typeof usageSchema>;

const WIDTH = 40;
const BLOCKS = [..."▁▂▃▄▅▆▇█"];

/** Summarises the usage of these runs; runs without samples are left out. */
export function usageOf(points: readonly HistoryPoint[], runIds: readonly string[]): Usage[] {
  return runIds.flatMap((runId) => usageOfRun(points.filter((point) => point.runId === runId)));
}

/** Summarises the samples of one run, oldest first. */
function usageOfRun(points: readonly HistoryPoint[]): Usage[] {
  const [first, last] = [points[0], points.at(-1)];
  if (!first || !last) return [];
  const drawn = thinOut(points, WIDTH);
  const memory = points.map(({ memoryBytes }) => memoryBytes);
  const cpu = points.map(({ cpuPercent }) => cpuPercent);
  return [
    {
      run_id: first.runId,
      since: rfc3339(first.atMs),
      until: rfc3339(last.atMs),
      samples: points.length,
      memory: {
        sparkline: draw(drawn.map(({ memoryBytes }) => memoryBytes)),
        min_bytes: Math.min(...memory),
        max_bytes: Math.max(...memory),
        last_bytes: last.memoryBytes,
      },
      cpu: {
        sparkline: draw(drawn.map(({ cpuPercent }) => cpuPercent)),
        min_percent: Math.min(...cpu),
        max_percent: Math.max(...cpu),
        last_percent: last.cpuPercent,
      },
    },
  ];
}

/** Scales from zero to the maximum, so that values that hardly change look that way. */
function draw(values: readonly number[]): string {
  const max = Math.max(...values);
  return values
    .map(
      (value) => BLOCKS[max > 0 ? Math.min(BLOCKS.length - 1, Math.floor((value / max) * BLOCKS.length)) : 0],
    )
    .join("");
}
