import { z } from "zod";
import {
  definePlugin,
  OpenStarryError,
  type PluginContext,
  type ProbeRun,
  probe,
  spawner,
} from "../../core/index.js";
import { createMatcher, MAX_LINE_BYTES, type Matcher } from "./matcher.js";

const optionsSchema = z.strictObject({
  pattern: z
    .string()
    .min(1)
    .max(1_000)
    .superRefine((pattern, context) => {
      try {
        new RegExp(pattern);
      } catch (error) {
        context.addIssue({ code: "custom", message: (error as Error).message });
      }
    }),
  stream: z.enum(["stdout", "stderr"]).optional(),
});
type Options = z.output<typeof optionsSchema>;

/** Lines that came together are looked at together, so often at most. */
const LOOK_MS = 20;
const MOST_LINES = 256;

/** The probe `log`: a run is ready once it has printed a line that fits a pattern. */
export default definePlugin({
  name: "probe-log",
  apiVersion: 1,
  requires: [spawner],
  provides: [probe],
  options: z.strictObject({}),
  setup(ctx) {
    const matcher = createMatcher();
    ctx.provide(probe, {
      name: "log",
      roles: ["readiness"],
      options: optionsSchema,
      watch(run) {
        const { report, agent } = run;
        const failed = (error: unknown) => {
          if (run.signal.aborted) return;
          report.starting({ reason: error instanceof Error ? error.message : String(error) });
          ctx.log.warn({ agent_id: agent.agent_id, err: error }, "what an agent prints cannot be watched");
        };
        report.starting({ reason: `no line fits ${(run.options as Options).pattern} so far` });
        printed(ctx, run, matcher).then((found) => found && report.ready(), failed);
      },
    });
  },
});

/** Whether a line of this run fits: from its first line on, also where an earlier daemon started it. */
async function printed(ctx: PluginContext, run: ProbeRun, matcher: Matcher): Promise<boolean> {
  const { agent, runId } = run;
  const { pattern, stream } = run.options as Options;
  const keeper = ctx.use(spawner).get(agent.spawner);
  if (!keeper?.logs) {
    throw new OpenStarryError("spawner_not_found", {
      detail: `the spawner "${agent.spawner}" keeps no output`,
      hint: "choose another type of probe for this agent",
    });
  }
  const done = new AbortController();
  const signal = AbortSignal.any([run.signal, done.signal]);
  let lines: string[] = [];
  let found = false;
  let problem: unknown;
  let cancel: (() => void) | undefined;
  const look = () => {
    cancel?.();
    cancel = undefined;
    try {
      found ||= matcher.fits(pattern, lines.splice(0));
    } catch (error) {
      problem = error;
    }
    if (found || problem) done.abort();
  };
  for await (const line of keeper.logs(agent.agent_id, {
    follow: true,
    signal,
    ...(stream ? { stream } : {}),
  })) {
    if (line.run_id !== runId) continue;
    lines.push(Buffer.from(line.bytes.subarray(0, MAX_LINE_BYTES)).toString("utf8"));
    if (lines.length >= MOST_LINES) look();
    else cancel ??= ctx.clock.after(LOOK_MS, look);
    if (done.signal.aborted) break;
  }
  cancel?.();
  lines = [];
  if (problem) throw problem;
  return found;
}
