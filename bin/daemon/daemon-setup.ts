import { isDeepStrictEqual } from "node:util";
import { loadConfig } from "../../core/config/load-config.js";
import { type BuiltinPlugins, loadPlugins } from "../../core/config/load-plugins.js";
import type { Config } from "../../core/contracts/config.js";
import { OpenStarryError } from "../../core/contracts/errors.js";
import type { ResolvedPlugin } from "../../core/contracts/plugin.js";
import { builtins, renamedBuiltins } from "../../plugins/builtins.js";
import type { DaemonOptions } from "./options.js";

/** A config, read and resolved. */
export interface DaemonSetup {
  config: Config;
  /** The config file; absent if there is none. */
  path?: string;
  plugins: readonly ResolvedPlugin[];
  /** What works and should be written otherwise. */
  notices: readonly string[];
}

/** Reads the config and loads its plugins. Rejects with all errors of either. */
export async function loadSetup(
  options: Pick<DaemonOptions, "config" | "cwd" | "port">,
): Promise<DaemonSetup> {
  const { config, file, folder } = await loadConfig({
    cwd: options.cwd,
    env: process.env,
    configFile: options.config,
  });
  const notices: string[] = [];
  const plugins = await loadPlugins({
    entries: config.plugins,
    folder,
    builtins: withTemplateFolders(builtins, config.templates),
    renamed: renamedBuiltins,
    onNotice: (notice) => notices.push(notice),
    file,
  });
  return {
    config,
    notices,
    plugins: options.port === undefined ? plugins : withPort(plugins, options.port),
    path: file,
  };
}

/** Hands the folders in `templates` of the config to the built-in plugin that reads them. */
export function withTemplateFolders(plugins: BuiltinPlugins, folders: readonly string[]): BuiltinPlugins {
  return new Map(
    [...plugins].map(([name, plugin]) => [
      name,
      name === "template-source-file" ? { ...plugin, options: { folders } } : plugin,
    ]),
  );
}

/** Applies `--port`, which overrides the config. */
function withPort(plugins: readonly ResolvedPlugin[], port: number): ResolvedPlugin[] {
  if (!plugins.some(({ definition }) => definition.name === "http-api")) {
    throw new OpenStarryError("input_invalid", {
      detail: "--port requires the plugin http-api, which the config disables",
      hint: "remove one of the two",
    });
  }
  return plugins.map((plugin) =>
    plugin.definition.name === "http-api"
      ? { ...plugin, options: { ...(plugin.options as object), port } }
      : plugin,
  );
}

/** Lists the differences between two sets of plugins, in words. */
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
