import { createRequire } from "node:module";
import { resolve, sep } from "node:path";
import { pathToFileURL } from "node:url";
import { nearest, OpenStarryError, toOpenStarryError } from "./errors.js";
import { importModule } from "./import-module.js";
import type { ResolvedPlugin } from "./kernel.js";
import { API_VERSION, type ConfiguredPlugin, type PluginFactory } from "./plugin.js";
import { validateSync } from "./validate.js";

/** The plugins that come with the daemon, by name. */
export type BuiltinPlugins = ReadonlyMap<
  string,
  {
    /** Loads without being named. */
    readonly default: boolean;
    load(): Promise<{ readonly default: PluginFactory<never> }>;
    /** Options of the daemon's own making, such as folders named elsewhere in the config. */
    readonly options?: Record<string, unknown>;
  }
>;

export interface LoadPluginsOptions {
  /** The config's `plugins`, as they were read. */
  entries: readonly unknown[];
  /** The config file, for messages. */
  file?: string;
  /** What relative names and packages start from. */
  folder: string;
  builtins: BuiltinPlugins;
}

/** One entry of the list, told apart but not loaded. */
type Entry =
  | { place: string; plugin: ConfiguredPlugin }
  | { place: string; name: string; options: Record<string, unknown> | false | undefined };

/**
 * Turns the config's list into plugins with valid options, the defaults first. Everything that is
 * wrong, of all entries, stands in one `config_invalid` that names each place and what would be right.
 */
export async function loadPlugins(options: LoadPluginsOptions): Promise<ResolvedPlugin[]> {
  const problems: string[] = [];
  const attempt = async <T>(place: string, work: () => Promise<T> | T): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      const { message, hint } = toOpenStarryError(error);
      problems.push(`${place}: ${message}${hint ? ` (${hint})` : ""}`);
      return undefined;
    }
  };
  const entries: Entry[] = [];
  for (const [index, raw] of options.entries.entries()) {
    const entry = await attempt(`plugins[${index}]`, () => readEntry(raw, `plugins[${index}]`));
    if (entry) entries.push(entry);
  }
  const named = new Map(entries.flatMap((entry) => ("name" in entry ? [[entry.name, entry]] : [])));
  const loaded: ResolvedPlugin[] = [];
  for (const [name, builtin] of options.builtins) {
    if (!builtin.default || named.has(name)) continue;
    const definition = (await builtin.load()).default.definition;
    loaded.push({ definition, options: builtin.options ?? {}, origin: "default", place: `default ${name}` });
  }
  for (const entry of entries) {
    const plugin = await attempt(entry.place, () => resolveEntry(entry, options));
    if (plugin) loaded.push({ ...plugin, origin: "config", place: entry.place });
  }
  for (const { definition, options: given, place } of loaded) {
    await attempt(place, () => checkPlugin(definition, given));
  }
  if (problems.length > 0) {
    throw new OpenStarryError("config_invalid", {
      detail: `${options.file ?? "the config"}: ${problems.join("; ")}`,
      hint: "correct these entries of plugins; nothing was started",
    });
  }
  return loaded;
}

function readEntry(raw: unknown, place: string): Entry {
  if (isConfigured(raw)) return { place, plugin: raw };
  if (isFactory(raw)) return { place, plugin: { definition: raw.definition, options: {} } };
  const [name, options, ...more] = Array.isArray(raw) ? raw : [raw];
  const isOptions =
    options === undefined || options === false || (typeof options === "object" && options !== null);
  if (typeof name !== "string" || !isOptions || Array.isArray(options) || more.length > 0) {
    throw new OpenStarryError("config_invalid", {
      detail: `expected a plugin, a name, [name, options] or [name, false], got ${describe(raw)}`,
      hint: typeof raw === "function" ? "list what definePlugin answers" : 'write "name" or ["name", { … }]',
    });
  }
  return { place, name, options: options as Record<string, unknown> | false | undefined };
}

async function resolveEntry(entry: Entry, from: LoadPluginsOptions): Promise<ConfiguredPlugin | undefined> {
  if ("plugin" in entry) return entry.plugin;
  const { name, options } = entry;
  const builtin = from.builtins.get(name);
  if (options === false) {
    if (!builtin) throw unknownPlugin(name, from, "there is no default of this name to leave out");
    return undefined;
  }
  if (builtin) {
    return {
      definition: (await builtin.load()).default.definition,
      options: { ...builtin.options, ...options },
    };
  }
  const exported = (await loadModule(name, from))["default"];
  const found = pluginOf(exported);
  if (!found) {
    throw new OpenStarryError("plugin_invalid", {
      detail: `"${name}" has no plugin as its default export (it is ${describe(exported)})`,
      hint: "a plugin module ends in: export default definePlugin({ … })",
    });
  }
  return options === undefined ? found : { definition: found.definition, options };
}

/** Also where a module of another kind wraps it once more. */
function pluginOf(exported: unknown): ConfiguredPlugin | undefined {
  if (isConfigured(exported)) return exported;
  if (isFactory(exported)) return { definition: exported.definition, options: {} };
  const inner = (exported as { default?: unknown } | undefined)?.default;
  return inner === undefined || inner === exported ? undefined : pluginOf(inner);
}

const PACKAGE_NAME = /^(@[a-z0-9~-][a-z0-9._~-]*\/)?[a-z0-9~-][a-z0-9._~-]*(\/[A-Za-z0-9._~-]+)*$/;

async function loadModule(name: string, from: LoadPluginsOptions): Promise<Record<string, unknown>> {
  const isPath = /^\.{0,2}\//.test(name);
  if (isPath) return importModule(resolve(from.folder, name), { code: "plugin_invalid", what: "plugin" });
  if (!PACKAGE_NAME.test(name) || name.split("/").includes("..")) {
    throw new OpenStarryError("plugin_not_found", {
      detail: `"${name}" is neither a built-in plugin, nor a path, nor the name of a package`,
      hint: "a path begins with ./ or ../ or /; addresses and node: modules are not loaded",
    });
  }
  const file = resolvePackage(name, [`${resolve(from.folder)}${sep}`, import.meta.url]);
  if (file === undefined)
    throw unknownPlugin(name, from, `there is no package of this name for ${from.folder}`);
  try {
    return (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  } catch (cause) {
    throw new OpenStarryError("plugin_invalid", {
      detail: `package ${name} could not be loaded: ${cause instanceof Error ? cause.message : String(cause)}`,
      cause,
    });
  }
}

/** From the config's folder, then from the daemon's. */
function resolvePackage(name: string, places: readonly string[]): string | undefined {
  for (const place of places) {
    try {
      return createRequire(place).resolve(name);
    } catch {
      // Not there; the next place may have it.
    }
  }
  return undefined;
}

function unknownPlugin(name: string, { builtins }: LoadPluginsOptions, why: string): OpenStarryError {
  const guess = nearest(name, builtins.keys());
  return new OpenStarryError("plugin_not_found", {
    detail: `"${name}": ${why}`,
    hint: guess
      ? `did you mean "${guess}"?`
      : `built in are ${[...builtins.keys()].join(", ")}; else npm install it`,
  });
}

function checkPlugin(definition: ConfiguredPlugin["definition"], options: unknown): void {
  const { name, apiVersion } = definition;
  if (apiVersion !== API_VERSION) {
    throw new OpenStarryError("plugin_invalid", {
      detail: `plugin ${name} is made for API version ${String(apiVersion)}; this daemon speaks ${API_VERSION}`,
      hint: "install the version of the plugin that fits this daemon",
    });
  }
  validateSync(definition.options, options, { code: "config_invalid", what: `options of plugin ${name}` });
}

/** By shape, since it may come from another copy of this package. */
function isConfigured(value: unknown): value is ConfiguredPlugin {
  const { definition } = (
    typeof value === "object" && value !== null ? value : {}
  ) as Partial<ConfiguredPlugin>;
  return typeof definition?.setup === "function" && typeof definition.name === "string";
}

function isFactory(value: unknown): value is PluginFactory<never> {
  return (
    typeof value === "function" &&
    isConfigured({ definition: (value as { definition?: unknown }).definition })
  );
}

function describe(value: unknown): string {
  if (value === undefined) return "missing";
  if (typeof value === "function") return "a function";
  return Array.isArray(value) ? "a list" : typeof value === "object" ? "an object" : JSON.stringify(value);
}
