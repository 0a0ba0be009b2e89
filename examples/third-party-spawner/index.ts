import { resolve } from "node:path";
import {
  definePlugin,
  OpenStarryError,
  type Spawner,
  type SpawnSpec,
  type StandardSchema,
  spawner,
} from "openstarry-daemon";

export interface NicedOptions {
  /** 1 to 19, as nice(1) takes it: by how much the priority is lower than the daemon's. Default 10. */
  niceness?: number;
}

const options: StandardSchema<NicedOptions, Required<NicedOptions>> = {
  "~standard": {
    version: 1,
    vendor: "niced",
    validate(value) {
      const { niceness = 10, ...unknown } = Object(value) as NicedOptions;
      const issues = Object.keys(unknown).map((key) => ({ path: [key], message: "unknown key" }));
      if (!Number.isInteger(niceness) || niceness < 1 || niceness > 19) {
        issues.push({
          path: ["niceness"],
          message: `expected a whole number from 1 to 19, got ${JSON.stringify(niceness)}`,
        });
      }
      return issues.length > 0 ? { issues } : { value: { niceness } };
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
  version: "1.0.0",
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
      command: "nice",
      args: ["-n", String(niceness), absolute(spec), ...spec.args],
    });
    /** What is asked for has to exist, and not only nice(1). */
    const check = async (spec: SpawnSpec) => {
      await base().check(spec);
      await base().check(niced(spec));
    };
    const provided: Spawner = {
      name: "niced",
      capabilities: { adopt: true },
      check,
      async spawn(spec, commit) {
        await check(spec);
        return base().spawn(niced(spec), commit);
      },
      adopt: async (spec) => base().adopt(spec),
      forget: async (agentId) => base().forget?.(agentId),
      async *logs(agentId, query) {
        yield* base().logs?.(agentId, query) ?? [];
      },
    };
    ctx.provide(spawner, provided);
  },
});
