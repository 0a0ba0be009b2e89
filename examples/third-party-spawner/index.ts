import { resolve } from "node:path";
import {
  definePlugin,
  OpenStarryError,
  type Spawner,
  type SpawnSpec,
  type StandardSchema,
  spawner,
} from "openstarry-daemon";

/** `niceness`: 1 to 19, as nice(1) takes it. Default 10. */
const options: StandardSchema<{ niceness?: number }, { niceness: number }> = {
  "~standard": {
    version: 1,
    vendor: "niced",
    validate(value) {
      const { niceness = 10 } = (value ?? {}) as { niceness?: number };
      const fits = Number.isInteger(niceness) && niceness >= 1 && niceness <= 19;
      return fits
        ? { value: { niceness } }
        : { issues: [{ path: ["niceness"], message: "expected 1 to 19" }] };
    },
  },
};

/** A relative command starts from the template's folder; nice(1) would start from the working folder. */
function absolute({ command, baseDir }: SpawnSpec): string {
  return command.includes("/") ? resolve(baseDir ?? "/", command) : command;
}

/**
 * A spawner that hands the real work to the spawner `process`, and has the program started by nice(1).
 * Templates choose it with `spawner: niced`.
 */
export default definePlugin({
  name: "spawner-niced",
  apiVersion: 1,
  provides: [spawner],
  options,
  setup(ctx, { niceness }) {
    const base = (): Spawner => {
      const found = ctx.use(spawner).get("process");
      if (found) return found;
      throw new OpenStarryError("spawner_not_found", {
        detail: "spawner niced needs the spawner process, and it is not loaded",
        hint: 'take ["spawner-process", false] out of the config',
      });
    };
    const niced = (spec: SpawnSpec): SpawnSpec => ({
      ...spec,
      command: "/usr/bin/nice",
      args: ["-n", String(niceness), absolute(spec), ...spec.args],
    });
    const provided: Spawner = {
      name: "niced",
      capabilities: { adopt: true },
      // What is asked for has to exist, and not only `nice`.
      check: (spec) => base().check(spec),
      async spawn(spec, commit) {
        await base().check(spec);
        return base().spawn(niced(spec), commit);
      },
      adopt: (spec) => base().adopt(spec),
      forget: async (agentId) => base().forget?.(agentId),
      async *logs(agentId, query) {
        yield* base().logs?.(agentId, query) ?? [];
      },
    };
    ctx.provide(spawner, provided);
  },
});
