import { z } from "zod";
import type { Config } from "../contracts/config.js";
import type { ConfiguredPlugin, PluginFactory } from "../contracts/plugin.js";
import { envSchema, idSchema, labelsSchema, passEnvSchema } from "../template/keys.js";
import { resourcesSchema } from "../template/resources.js";

const agentSchema = z.strictObject({
  agent_id: idSchema,
  template_id: idSchema,
  params: z.record(z.string(), z.unknown()).default({}),
  labels: labelsSchema.default({}),
  env: envSchema.default({}),
});

/** Plugins are checked one by one, with their own messages, when they are resolved. */
export const configSchema = z.strictObject({
  /** In order of start; the first is the master. */
  agents: z.array(agentSchema).max(10_000).default([]),
  /** Folders of template files, from the config file's folder. */
  templates: z.array(z.string().min(1)).max(100).default([]),
  defaults: z
    .strictObject({
      pass_env: passEnvSchema.default([]),
      labels: labelsSchema.default({}),
      /** For each limit that a template does not set itself. */
      resources: resourcesSchema.optional(),
    })
    .prefault({}),
  /** What becomes of the agents when the daemon is stopped without being told. */
  on_daemon_stop: z.enum(["stop", "keep"]).default("stop"),
  plugins: z.array(z.unknown()).max(200).default([]),
}) satisfies z.ZodType<Config>;

/**
 * One entry of `plugins`: a plugin value, called with its options or not; a name (a built-in, else a
 * path from the config file, else a package); a name with options; or a name with `false` to leave a
 * default out.
 */
export type PluginEntry =
  | ConfiguredPlugin
  | PluginFactory<never>
  | string
  | readonly [name: string, options: Record<string, unknown> | false];

/** The config as people write it. */
export type ConfigInput = Omit<z.input<typeof configSchema>, "plugins"> & {
  plugins?: readonly PluginEntry[];
};

/** Gives a TypeScript config its types and completion. */
export function defineConfig(config: ConfigInput): ConfigInput {
  return config;
}
