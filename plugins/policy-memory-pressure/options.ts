import { z } from "zod";
import { duration, percent } from "../../core/index.js";

const count = () => z.int().min(1).max(100_000).optional();
const share = (of: string) => percent(of).refine((value) => value <= 100, "expected at most 100%");
const path = () => z.string().startsWith("/", "expected an absolute path");

export const options = z.strictObject({
  /** So many agents with a process at a time. */
  max_running: count(),
  /** So many agents that are not ready yet at a time. */
  max_starting: count(),
  /** What is done about memory pressure: `stop` includes `wait`. */
  on_pressure: z.enum(["stop", "wait", "ignore"]).default("stop"),
  /** Starts wait when some tasks waited for memory for so much of the last 10 s … */
  wait_some: share("the time").default(20),
  /** … or when less than so much memory is available. */
  wait_available: share("memory").default(5),
  /** An agent is stopped when all tasks waited for memory for so much of the last 10 s … */
  stop_full: share("the time").default(30),
  /** … or when less than so much memory is available; … */
  stop_available: share("memory").default(2),
  /** … and has been for so long. */
  stop_after: duration().default(10_000),
  /** What tasks waited counts only while less than so much memory is available. */
  psi_counts_below: share("memory").default(25),
  /** Starts go on when the pressure has been over for so long … */
  calm: duration().default(30_000),
  /** … one after the other, so far apart. */
  spacing: duration().default(5_000),
  /** How often the files are read. */
  interval: duration({ min: "100ms" }).default(2_000),
  psi_file: path().default("/proc/pressure/memory"),
  meminfo_file: path().default("/proc/meminfo"),
});
export type Options = z.output<typeof options>;
