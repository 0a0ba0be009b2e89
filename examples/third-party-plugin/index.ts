import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { definePlugin, SpawnDeferred, type StandardSchema } from "openstarry-daemon";

/** Both hours are of the local day, 0 to 23; equal hours mean that it is never quiet. */
export interface QuietHoursOptions {
  from: number;
  to: number;
  /** Where ends are noted: a file in the daemon's home. Default `ends.jsonl`. */
  file?: string;
}

/** Any validator that speaks Standard Schema will do; this one is written by hand. */
const options: StandardSchema<QuietHoursOptions, Required<QuietHoursOptions>> = {
  "~standard": {
    version: 1,
    vendor: "quiet-hours",
    validate(value) {
      const { from, to, file = "ends.jsonl", ...unknown } = (value ?? {}) as Partial<QuietHoursOptions>;
      const issues = Object.keys(unknown).map((key) => ({ message: `unknown key "${key}"` }));
      for (const [key, hour] of [
        ["from", from],
        ["to", to],
      ] as const) {
        if (!Number.isInteger(hour) || Number(hour) < 0 || Number(hour) > 23) {
          issues.push({ message: `${key}: expected an hour from 0 to 23, got ${JSON.stringify(hour)}` });
        }
      }
      return issues.length > 0 ? { issues } : { value: { from: Number(from), to: Number(to), file } };
    },
  },
};

export default definePlugin({
  name: "quiet-hours",
  apiVersion: 1,
  version: "1.0.0",
  options,
  setup(ctx, { from, to, file }) {
    const isQuiet = (hour: number) => (from <= to ? hour >= from && hour < to : hour >= from || hour < to);

    ctx.hooks.beforeSpawn.tap("quiet hours", (spec) => {
      if (isQuiet(new Date(ctx.clock.now()).getHours())) {
        throw new SpawnDeferred(`it is quiet from ${from}:00 to ${to}:00`, { retryAfterMs: 60_000 });
      }
      return { ...spec, env: { ...spec.env, QUIET_HOURS: `${from}-${to}` } };
    });

    ctx.hooks.afterExit.tap("note the end", async ({ agent, run }) => {
      const line = {
        agent_id: agent.agent_id,
        run_id: run.run_id,
        kind: run.exit.kind,
        cause: run.exit.cause,
      };
      await appendFile(join(ctx.dataDir, file), `${JSON.stringify(line)}\n`, { mode: 0o600 });
    });
  },
});
