import { z } from "zod";
import { rfc3339 } from "../../../core/index.js";
import { type HistoryPoint, thinOut } from "../sample-history.js";

const sparkline = z.string().meta({
  description: "Oldest first, at most 40 of ▁▂▃▄▅▆▇█: the lowest is nothing, the highest the maximum.",
});

/** What one run has used, as a curve with its figures. */
export const curveSchema = z
  .object({
    run_id: z.string(),
    since: z.string().meta({ description: "When its first sample was taken, of those that are kept." }),
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
export type Curve = z.output<typeof curveSchema>;

const WIDTH = 40;
const BLOCKS = [..."▁▂▃▄▅▆▇█"];

/** The curves of these runs, of those that were measured. */
export function curvesOf(points: readonly HistoryPoint[], runIds: readonly string[]): Curve[] {
  return runIds.flatMap((runId) => curveOf(points.filter((point) => point.runId === runId)));
}

/** Of the samples of one run, oldest first; nothing where there are none. */
function curveOf(points: readonly HistoryPoint[]): Curve[] {
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

/** From nothing to the greatest, so that what hardly changes looks as if it hardly changed. */
function draw(values: readonly number[]): string {
  const max = Math.max(...values);
  return values
    .map(
      (value) => BLOCKS[max > 0 ? Math.min(BLOCKS.length - 1, Math.floor((value / max) * BLOCKS.length)) : 0],
    )
    .join("");
}
