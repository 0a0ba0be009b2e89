import { appendFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { definePlugin, SpawnDeferred, type StandardSchema } from "openstarry-daemon";

/** Both hours are of the local day, 0 to 23; equal hours mean that it is never quiet. */
export interface QuietHoursOptions {
  from: number;
  to: number;
}

/** Any validator that speaks Standard Schema will do; this one is written by hand. */
const options: StandardSchema<QuietHoursOptions> = {
  "~standard": {
    version: 1,
    vendor: "quiet-hours",
    validate(value) {
      const { from, to, ...unknown } = Object(value) as Partial<QuietHoursOptions>;
      const issues = Object.keys(unknown).map((key) => ({ path: [key], message: "unknown key" }));
      for (const [key, hour] of Object.entries({ from, to })) {
        if (!Number.isInteger(hour) || Number(hour) < 0 || Number(hour) > 23) {
          issues.push({ path: [key], message: `expected an hour from 0 to 23, got ${JSON.stringify(hour)}` });
        }
      }
      return issues.length > 0 ? { issues } : { value: { from: Number(from), to: Number(to) } };
    },
  },
};

/** No agent starts in the quiet hours; every end of a run is noted in `quiet-hours/ends.jsonl`. */
export default definePlugin({
  name: "quiet-hours",
  apiVersion: 1,
  version: "1.0.0",
  options,
  setup(ctx, { from, to }) {
    const folder = join(ctx.dataDir, "quiet-hours");
    const isQuiet = (hour: number) => (from <= to ? hour >= from && hour < to : hour >= from || hour < to);

    ctx.hooks.beforeSpawn.tap("quiet hours", (spec) => {
      if (isQuiet(new Date(ctx.clock.now()).getHours())) {
        throw new SpawnDeferred(`it is quiet from ${from}:00 to ${to}:00`, { retryAfterMs: 60_000 });
      }
      return { ...spec, env: { ...spec.env, QUIET_HOURS: `${from}-${to}` } };
    });

    ctx.hooks.afterExit.tap("note the end", async ({ agent, run }) => {
      const { kind, cause } = run.exit;
      const line = { agent_id: agent.agent_id, run_id: run.run_id, kind, cause };
      await appendFile(join(folder, "ends.jsonl"), `${JSON.stringify(line)}\n`, { mode: 0o600 });
    });

    return {
      async start() {
        await mkdir(folder, { recursive: true, mode: 0o700 });
      },
    };
  },
});
