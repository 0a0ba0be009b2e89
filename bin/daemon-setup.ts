import { isDeepStrictEqual } from "node:util";
import type { Config } from "../core/define-config.js";
import type { ResolvedPlugin } from "../core/kernel.js";
import { loadConfig } from "../core/load-config.js";
import { type BuiltinPlugins, loadPlugins } from "../core/load-plugins.js";
import { builtins } from "../plugins/builtins.js";
import type { DaemonOptions } from "./running-daemon.js";

/** Everything that a config says, read and resolved. */
export interface DaemonSetup {
  config: Config;
  /** The config file; absent: there is none. */
  path?: string;
  plugins: readonly ResolvedPlugin[];
}

/** What a changed list of plugins would mean, in words. */
export function pluginChanges(before: readonly ResolvedPlugin[], after: readonly ResolvedPlugin[]): string[] {
  const named = (plugins: readonly ResolvedPlugin[]) =>
    new Map(plugins.map((plugin) => [plugin.definition.name, plugin]));
  const [old, now] = [named(before), named(after)];
  const gone = [...old.keys()].filter((name) => !now.has(name)).map((name) => `plugin ${name} was removed`);
  const rest = [...now].flatMap(([name, plugin]) => {
    const known = old.get(name);
    if (!known) return [`plugin ${name} was added`];
    return isDeepStrictEqual(known.options, plugin.options) ? [] : [`the options of plugin ${name} changed`];
  });
  return [...gone, ...rest];
}

/** Reads the config and loads its plugins. Rejects with everything that is wrong, nothing started. */
export async function loadSetup(options: DaemonOptions): Promise<DaemonSetup> {
  const { config, file, folder } = await loadConfig({
    cwd: options.cwd,
    env: process.env,
    ...(options.config === undefined ? {} : { configFile: options.config }),
  });
  const plugins = await loadPlugins({
    entries: config.plugins,
    ...(file === undefined ? {} : { file }),
    folder,
    builtins: withOptions("templates-file", { folders: config.templates }),
  });
  return {
    config,
    ...(file === undefined ? {} : { path: file }),
    plugins: options.port === undefined ? plugins : plugins.map((plugin) => onPort(plugin, options.port)),
  };
}

/** The built-in plugins, one of them with options that stand elsewhere in the config. */
function withOptions(name: string, options: Record<string, unknown>): BuiltinPlugins {
  const plugin = builtins.get(name);
  return plugin ? new Map(builtins).set(name, { ...plugin, options } as never) : builtins;
}

/** `--port` is stronger than the config. */
function onPort(plugin: ResolvedPlugin, port: number | undefined): ResolvedPlugin {
  if (plugin.definition.name !== "http-api") return plugin;
  return { ...plugin, options: { ...(plugin.options as Record<string, unknown>), port } };
}
