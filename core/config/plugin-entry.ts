import { OpenStarryError } from "../contracts/errors.js";
import { API_VERSION, type ConfiguredPlugin, type PluginFactory } from "../contracts/plugin.js";
import type { Slot } from "../contracts/slot.js";
import { validateSync } from "../lib/validate.js";

/** One entry of the config's `plugins`, told apart but not loaded. */
export type ReadEntry =
  | { readonly place: string; readonly plugin: ConfiguredPlugin }
  | { readonly place: string; readonly name: string; readonly options: Options | false | undefined };

export type Options = Record<string, unknown>;

/** Rejects with `config_invalid` and the line as it should be, as far as that can be guessed. */
export function readEntry(raw: unknown, place: string): ReadEntry {
  const plugin = pluginOf(raw);
  if (plugin) return { place, plugin };
  const [name, options, ...more] = Array.isArray(raw) ? raw : [raw];
  const fits = options === undefined || options === false || isPlainObject(options);
  if (typeof name === "string" && name !== "" && fits && more.length === 0) return { place, name, options };
  throw new OpenStarryError("config_invalid", {
    detail: `expected a plugin, a name, [name, options] or [name, false], and got ${describe(raw)}`,
    hint: correction(raw),
  });
}

/** A plugin, called with its options or not. By shape: it may come from another copy of this package. */
export function pluginOf(value: unknown): ConfiguredPlugin | undefined {
  if (typeof value === "function" && isDefinition((value as Partial<PluginFactory<never>>).definition)) {
    return { definition: (value as PluginFactory<never>).definition, options: {} };
  }
  const configured = (isPlainObject(value) ? value : {}) as Partial<ConfiguredPlugin>;
  if (!isDefinition(configured.definition)) return undefined;
  return { definition: configured.definition, options: configured.options ?? {} };
}

/** The plugin that a module exports. Rejects with `plugin_invalid`, and what the module should say. */
export function exportedPlugin(exported: unknown): ConfiguredPlugin {
  const byDefault = defaultOf(exported);
  // A CommonJS module that was compiled from ESM stands behind a second default.
  const plugin = pluginOf(byDefault) ?? pluginOf(defaultOf(byDefault)) ?? pluginOf(exported);
  if (plugin) return plugin;
  const named = Object.entries(Object(exported)).find(([, it]) => pluginOf(it) !== undefined)?.[0];
  throw new OpenStarryError("plugin_invalid", {
    detail:
      byDefault === undefined
        ? `it has no default export${named === undefined ? "" : `; its export "${named}" is a plugin`}`
        : `its default export is no plugin but ${describe(byDefault)}`,
    hint:
      named === undefined
        ? "a plugin's module says: export default definePlugin({ … })"
        : `say in the plugin's module: export { ${named} as default }`,
  });
}

/** Rejects with `plugin_invalid`, or with `config_invalid` for options that do not fit. */
export function checkPlugin({ definition, options }: ConfiguredPlugin): void {
  const { name, apiVersion } = definition;
  const refuse = (problem: string, hint: string) =>
    new OpenStarryError("plugin_invalid", { detail: `plugin ${name}: ${problem}`, hint });
  if (!/^[A-Za-z0-9@][A-Za-z0-9@/._-]{0,99}$/.test(name)) {
    throw refuse("its name is not valid", "name it with letters, digits and -");
  }
  if (apiVersion !== API_VERSION) {
    throw refuse(
      `it is made for apiVersion ${String(apiVersion)}, and this daemon speaks ${API_VERSION}`,
      `install a version of ${name} that is made for apiVersion ${API_VERSION}`,
    );
  }
  if (typeof definition.options?.["~standard"]?.validate !== "function") {
    throw refuse("its options are no schema", "give it options: z.strictObject({})");
  }
  for (const field of ["requires", "optional", "provides"] as const) {
    const slots: unknown = definition[field] ?? [];
    if (!Array.isArray(slots) || !slots.every(isSlot)) {
      throw refuse(`${field} is not a list of slots`, "list slots, as defineSlot makes them");
    }
  }
  validateSync(definition.options, options, { code: "config_invalid", what: `options of plugin ${name}` });
}

function isSlot(value: unknown): value is Slot<unknown> {
  const slot = Object(value) as Partial<Slot<unknown>>;
  return typeof slot.id === "symbol" && typeof slot.name === "string" && typeof slot.arity === "string";
}

function isDefinition(value: unknown): value is ConfiguredPlugin["definition"] {
  const { name, setup } = Object(value) as { name?: unknown; setup?: unknown };
  return typeof value === "object" && typeof name === "string" && typeof setup === "function";
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function defaultOf(value: unknown): unknown {
  return typeof value === "object" && value !== null ? (value as { default?: unknown }).default : undefined;
}

/** What it is, never what is in it: options may hold secrets. */
function describe(value: unknown): string {
  if (value instanceof Promise) return "a promise";
  if (isDefinition(value)) return `the bare definition of "${value.name}"`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "function") return "a function that definePlugin did not make";
  if (isPlainObject(value))
    return `an object with ${Object.keys(value).join(", ") || "nothing in it"}`.slice(0, 100);
  return JSON.stringify(value) ?? String(value);
}

/** What was probably meant. */
function correction(raw: unknown): string {
  if (raw instanceof Promise) return 'write "await" before it, or list the path: "./plugin.ts"';
  if (isDefinition(raw)) return "write definePlugin({ … }) around it";
  if (typeof raw === "function") return "list what definePlugin({ … }) answers";
  if (Array.isArray(raw)) return correctionOfList(raw);
  if (!isPlainObject(raw)) return 'write "name" or ["name", { … }]';
  if (pluginOf(raw["default"])) return "list the module's default export, not the module";
  const keys = Object.keys(raw);
  const named = typeof raw["name"] === "string" ? raw["name"] : keys.length === 1 ? keys[0] : undefined;
  if (named === undefined) return 'write ["name", { … }]';
  return raw[named] === false ? `write ["${named}", false]` : `write ["${named}", { … }]`;
}

function correctionOfList([first, ...rest]: readonly unknown[]): string {
  const plugin = pluginOf(first);
  if (plugin) return `call the plugin with its options: ${plugin.definition.name}({ … })`;
  if (typeof first !== "string" || first === "") return 'write ["name", { … }]';
  return rest.length > 1
    ? `write each plugin as an entry of its own, as in ["${first}", { … }]`
    : `write ["${first}", { … }] or ["${first}", false]`;
}
