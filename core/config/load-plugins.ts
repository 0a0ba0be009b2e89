import { existsSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { type ErrorCode, isOpenStarryError, OpenStarryError } from "../contracts/errors.js";
import type { ConfiguredPlugin, PluginFactory, ResolvedPlugin } from "../contracts/plugin.js";
import { errorText } from "../lib/error-text.js";
import { nearest } from "../lib/nearest.js";
import { importModule } from "./import-module.js";
import { checkPlugin, exportedPlugin, type Options, type ReadEntry, readEntry } from "./plugin-entry.js";
import { packageEntry, resolvePackage } from "./plugin-package.js";

/** The plugins that come with the daemon, by name. */
export type BuiltinPlugins = ReadonlyMap<
  string,
  {
    /** Loads without being named. */
    readonly default: boolean;
    load(): Promise<{ readonly default: PluginFactory<never> }>;
    /** Options that stand elsewhere in the config. Those of the entry win; lists are joined. */
    readonly options?: Readonly<Options>;
  }
>;

export interface LoadPluginsOptions {
  /** The config's `plugins`, as they were read. */
  entries: readonly unknown[];
  /** The config file, for messages. */
  file?: string;
  /** What relative paths and packages start from. */
  folder: string;
  builtins: BuiltinPlugins;
  /** Former names of built-in plugins, and the plugins that do their work now. */
  renamed?: RenamedPlugins;
  /** Told of every entry that works and should be written otherwise. */
  onNotice?: (notice: string) => void;
}

/** The first of the new names takes the options. */
export type RenamedPlugins = ReadonlyMap<string, readonly [string, ...string[]]>;

/**
 * Turns the config's list into plugins: the defaults first, then the list's in its order. A name is a
 * built-in, else a path from the config's folder, else a package installed for that folder or for the
 * daemon. A default that is listed, or left out with `false`, does not load a second time. Options are
 * checked and left as they were written: who sets a plugin up reads them anew.
 *
 * Everything that is wrong, of all entries, is one error that names each place and what would be right;
 * its code is that of the mistake where there is just one, else `config_invalid`.
 */
export async function loadPlugins(options: LoadPluginsOptions): Promise<ResolvedPlugin[]> {
  const problems: Problem[] = [];
  const attempt = createAttempt(problems);
  const entries: ReadEntry[] = [];
  for (const [index, raw] of options.entries.entries()) {
    const entry = await attempt(`plugins[${index}]`, () => readEntry(raw, `plugins[${index}]`));
    if (entry) entries.push(...currentEntries(entry, options));
  }
  const listed: ResolvedPlugin[] = [];
  for (const entry of entries) {
    const plugin = await attempt(entry.place, () => resolveEntry(entry, entries, options));
    if (plugin) listed.push({ ...plugin, origin: "config", place: entry.place });
  }
  const taken = new Set([
    ...entries.flatMap((entry) => ("name" in entry ? [entry.name] : [])),
    ...listed.map(({ definition }) => definition.name),
  ]);
  const defaults: ResolvedPlugin[] = [];
  for (const [name, builtin] of options.builtins) {
    if (!builtin.default || taken.has(name)) continue;
    const { definition } = (await builtin.load()).default;
    defaults.push({ definition, options: { ...builtin.options }, origin: "default", place: "a default" });
  }
  for (const plugin of [...defaults, ...listed]) {
    await attempt(plugin.place, () => checkPlugin(plugin));
  }
  if (problems.length > 0) throw together(problems, options.file);
  return [...defaults, ...listed];
}

/** An entry under the names that its plugins have now. */
function currentEntries(
  entry: ReadEntry,
  { renamed, builtins, file, onNotice }: LoadPluginsOptions,
): ReadEntry[] {
  const names = "name" in entry && !builtins.has(entry.name) ? renamed?.get(entry.name) : undefined;
  if (!names || !("name" in entry)) return [entry];
  const where = file === undefined ? "" : `config ${file}: `;
  const now = names.map((name) => `"${name}"`).join(" and ");
  onNotice?.(`${where}${entry.place}: plugin "${entry.name}" is called ${now} now; write that instead`);
  const { options, place } = entry;
  return names.map((name, index) => ({
    place,
    name,
    options: index === 0 || options === false ? options : undefined,
  }));
}

interface Problem {
  code: ErrorCode;
  place: string;
  detail: string;
  hint?: string;
}

/** Runs something, and keeps what goes wrong instead of throwing it. */
function createAttempt(problems: Problem[]) {
  return async <T>(place: string, work: () => Promise<T> | T): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      const detail = errorText(error);
      if (isOpenStarryError(error)) {
        const { code, hint } = error;
        problems.push({ code, place, detail, hint });
      } else problems.push({ code: "plugin_invalid", place, detail });
      return undefined;
    }
  };
}

function together(problems: readonly Problem[], file: string | undefined): OpenStarryError {
  const [only, ...more] = problems;
  const where = file === undefined ? "" : `config ${file}: `;
  if (only && more.length === 0) {
    const { code, place, detail, hint } = only;
    return new OpenStarryError(code, {
      detail: `${where}${place}: ${detail}`,
      hint,
    });
  }
  const lines = problems.map(
    ({ place, detail, hint }) => `${place}: ${detail}${hint === undefined ? "" : ` (${hint})`}`,
  );
  return new OpenStarryError("config_invalid", {
    detail: `${where}${lines.join("; ")}`,
    hint: "correct these entries of plugins; nothing was started",
    data: { problems: [...problems] },
  });
}

async function resolveEntry(
  entry: ReadEntry,
  all: readonly ReadEntry[],
  from: LoadPluginsOptions,
): Promise<ConfiguredPlugin | undefined> {
  if ("plugin" in entry) {
    const { definition, options } = entry.plugin;
    const builtin = from.builtins.get(definition.name);
    // A stranger of the same name takes the place of the built-in one, and has options of its own.
    const isOwn = builtin !== undefined && (await builtin.load()).default.definition === definition;
    return isOwn ? { definition, options: joinOptions(builtin.options, options) } : entry.plugin;
  }
  const { name, options } = entry;
  const builtin = from.builtins.get(name);
  if (options === false) {
    const other = all.find((it) => it !== entry && "name" in it && it.name === name && it.options !== false);
    if (other) {
      throw new OpenStarryError("config_invalid", {
        detail: `"${name}" is left out here and listed in ${other.place}`,
        hint: `remove one of the two`,
      });
    }
    if (!builtin) throw unknown(name, from, `there is no built-in plugin "${name}" to leave out`);
    return undefined;
  }
  if (builtin) {
    const { definition } = (await builtin.load()).default;
    return { definition, options: joinOptions(builtin.options, options) };
  }
  const found = await loadNamed(name, from);
  return options === undefined ? found : { definition: found.definition, options };
}

function joinOptions(own: Readonly<Options> | undefined, given: unknown): unknown {
  if (own === undefined) return given ?? {};
  const entries = Object.entries(Object(given)).map(([key, value]) => {
    const before = own[key];
    return [key, Array.isArray(before) && Array.isArray(value) ? [...before, ...value] : value];
  });
  return { ...own, ...Object.fromEntries(entries) };
}

async function loadNamed(name: string, from: LoadPluginsOptions): Promise<ConfiguredPlugin> {
  const file = /^\.{0,2}\//.test(name) ? await pathEntry(name, from) : await packageFile(name, from);
  const exported = await importModule(file, { code: "plugin_invalid", what: "plugin" });
  try {
    return exportedPlugin(exported);
  } catch (error) {
    if (!isOpenStarryError(error)) throw error;
    throw new OpenStarryError(error.code, {
      detail: `plugin ${file}: ${error.message}`,
      hint: error.hint,
    });
  }
}

/** A file, or a folder that is a package. */
async function pathEntry(name: string, { folder }: LoadPluginsOptions): Promise<string> {
  const path = resolve(folder, name);
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isFile()) return path;
  if (stats?.isDirectory() && existsSync(resolve(path, "package.json"))) return packageEntry(path, ".");
  const extension = [".ts", ".mts", ".js", ".mjs", ".cjs"].find((it) => existsSync(path + it));
  throw new OpenStarryError("plugin_not_found", {
    detail: stats ? `${path} is neither a file nor a package` : `there is no file ${path}`,
    hint:
      extension === undefined
        ? "a path starts from the config's folder"
        : `write the extension too: "${name}${extension}"`,
  });
}

async function packageFile(name: string, from: LoadPluginsOptions): Promise<string> {
  const own = dirname(fileURLToPath(import.meta.url));
  let file: string | undefined;
  try {
    file = await resolvePackage(name, [from.folder, own]);
  } catch (error) {
    const guess = nearest(name, from.builtins.keys());
    if (guess === undefined) throw error;
    throw unknown(name, from, (error as Error).message);
  }
  if (file !== undefined) return file;
  if (existsSync(resolve(from.folder, name))) {
    throw new OpenStarryError("plugin_not_found", {
      detail: `there is no package "${name}", but there is a file of this name`,
      hint: `write "./${name}"`,
    });
  }
  throw unknown(name, from, `there is neither a built-in plugin nor an installed package "${name}"`);
}

function unknown(name: string, { builtins, folder }: LoadPluginsOptions, detail: string): OpenStarryError {
  const guess = nearest(name, builtins.keys());
  return new OpenStarryError("plugin_not_found", {
    detail,
    hint: guess
      ? `did you mean "${guess}"?`
      : `built in are ${[...builtins.keys()].join(", ")}; a package is installed with npm in ${folder}`,
  });
}
