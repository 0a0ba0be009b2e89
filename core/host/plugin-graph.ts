import { OpenStarryError } from "../contracts/errors.js";
import type { ResolvedPlugin } from "../contracts/plugin.js";
import type { Slot } from "../contracts/slot.js";

/** A default that gave way to a plugin of the config. */
export interface Displacement {
  /** The default that does not load. */
  plugin: string;
  /** The plugin of the config that provides `slot` instead. */
  by: string;
  slot: string;
  /** Slots that the default provided too, and that nobody provides now. */
  emptied: string[];
}

export interface PluginOrder {
  /** Providers before those who use them; otherwise as they were given. */
  ordered: ResolvedPlugin[];
  displaced: Displacement[];
}

/** Who wants to provide one slot that only one can. */
interface Rivals {
  slot: Slot<unknown>;
  explicit: ResolvedPlugin[];
  defaults: ResolvedPlugin[];
}

/** What is wrong, and what to change about it. */
interface Problem {
  detail: string;
  hint: string;
}

/**
 * Decides which plugins load and in what order. Pure.
 *
 * A plugin of the config that provides a slot for one displaces the default that provides it: the whole
 * default, even if it provides more. What is empty then is told in `emptied`, and is an error where
 * somebody requires it. Two plugins for one such slot, a requirement that nobody meets, a cycle and a name
 * that two plugins have are one error, `plugin_conflict`, that names them all.
 */
export function orderPlugins(plugins: readonly ResolvedPlugin[]): PluginOrder {
  const rivals = findRivals(plugins);
  const displacements = rivals.flatMap(({ slot, explicit: [first], defaults }) =>
    first ? defaults.map((it) => ({ plugin: it, by: first, slot })) : [],
  );
  const gone = new Set(displacements.map(({ plugin }) => plugin));
  const kept = plugins.filter((it) => !gone.has(it));
  const displaced = displacements.map(({ plugin, by, slot }) => ({
    plugin: nameOf(plugin),
    by: nameOf(by),
    slot: slot.name,
    emptied: (plugin.definition.provides ?? [])
      .filter(({ id }) => !kept.some((other) => provides(other, id)))
      .map(({ name }) => name),
  }));
  const { ordered, stuck } = sort(kept);
  const problems = [
    ...sharedNames(kept),
    ...rivals.flatMap(crowded),
    ...unmet(kept, displaced),
    ...(stuck.length > 0 ? [describeCycle(stuck)] : []),
  ];
  if (problems.length > 0) {
    throw new OpenStarryError("plugin_conflict", {
      detail: problems.map(({ detail }) => detail).join("; "),
      hint: [...new Set(problems.map(({ hint }) => hint))].join("; "),
      data: { problems: problems.map(({ detail }) => detail) },
    });
  }
  return { ordered, displaced };
}

function findRivals(plugins: readonly ResolvedPlugin[]): Rivals[] {
  const bySlot = new Map<symbol, Rivals>();
  for (const plugin of plugins) {
    for (const slot of plugin.definition.provides ?? []) {
      if (slot.arity !== "one") continue;
      const rivals = bySlot.get(slot.id) ?? { slot, explicit: [], defaults: [] };
      const side = plugin.origin === "default" ? rivals.defaults : rivals.explicit;
      if (!side.includes(plugin)) side.push(plugin);
      bySlot.set(slot.id, rivals);
    }
  }
  return [...bySlot.values()];
}

/** More than one plugin of the same side that would provide the slot. */
function crowded({ slot, explicit, defaults }: Rivals): Problem[] {
  const providers = explicit.length > 0 ? explicit : defaults;
  if (providers.length < 2) return [];
  return [
    {
      detail: `${list(providers.map(told))} ${providers.length === 2 ? "both" : "all"} provide ${slot.name}, which only one can`,
      hint: `keep one of ${list(providers.map(nameOf))} in plugins`,
    },
  ];
}

function sharedNames(plugins: readonly ResolvedPlugin[]): Problem[] {
  return [...new Set(plugins.map(nameOf))].flatMap((name) => {
    const sharing = plugins.filter((it) => nameOf(it) === name);
    if (sharing.length < 2) return [];
    const places = list(sharing.map(({ place }) => place));
    return [{ detail: `${places} are both named "${name}"`, hint: `list "${name}" once` }];
  });
}

/** Requirements that nobody meets. */
function unmet(plugins: readonly ResolvedPlugin[], displaced: readonly Displacement[]): Problem[] {
  return plugins.flatMap((plugin) =>
    (plugin.definition.requires ?? [])
      .filter(({ id }) => !plugins.some((other) => provides(other, id)))
      .map((slot) => {
        const lost = displaced.find(({ emptied }) => emptied.includes(slot.name));
        const why = lost ? `: ${lost.by} displaced ${lost.plugin} for ${lost.slot}, which provided it` : "";
        return {
          detail: `${told(plugin)} requires ${slot.name}, which nothing provides${why}`,
          hint: `add a plugin that provides ${slot.name}, or leave ${nameOf(plugin)} out with ["${nameOf(plugin)}", false]`,
        };
      }),
  );
}

/** Always the first that waits for nothing; what is left when there is none waits in a circle. */
function sort(plugins: readonly ResolvedPlugin[]): { ordered: ResolvedPlugin[]; stuck: ResolvedPlugin[] } {
  const ordered: ResolvedPlugin[] = [];
  let rest = [...plugins];
  for (;;) {
    const next = rest.find((plugin) => waitsFor(plugin, rest).length === 0);
    if (!next) return { ordered, stuck: rest };
    ordered.push(next);
    rest = rest.filter((it) => it !== next);
  }
}

/** The plugins that provide what this one uses, with the slot; a plugin does not wait for itself. */
function waitsFor(
  plugin: ResolvedPlugin,
  among: readonly ResolvedPlugin[],
): { provider: ResolvedPlugin; slot: Slot<unknown> }[] {
  const { requires = [], optional = [] } = plugin.definition;
  return [...requires, ...optional].flatMap((slot) =>
    among.filter((it) => it !== plugin && provides(it, slot.id)).map((provider) => ({ provider, slot })),
  );
}

/** Follows the stuck ones until one comes again. */
function describeCycle(stuck: readonly ResolvedPlugin[]): Problem {
  const path: { plugin: ResolvedPlugin; slot?: Slot<unknown> }[] = [];
  let at = stuck[0];
  while (at && !path.some(({ plugin }) => plugin === at)) {
    const next: { provider: ResolvedPlugin; slot: Slot<unknown> } | undefined = waitsFor(at, stuck)[0];
    path.push({ plugin: at, ...(next ? { slot: next.slot } : {}) });
    at = next?.provider;
  }
  const cycle = path.slice(path.findIndex(({ plugin }) => plugin === at));
  const names = [...cycle.map(({ plugin }) => nameOf(plugin)), at ? nameOf(at) : ""];
  const needs = cycle.map(({ plugin, slot }) => `${told(plugin)} needs ${slot?.name ?? ""}`);
  return {
    detail: `these plugins wait for each other: ${names.join(" → ")} (${needs.join(", ")})`,
    hint: `take one of ${list(names.slice(0, -1))} out of plugins`,
  };
}

function provides(plugin: ResolvedPlugin, id: symbol): boolean {
  return plugin.definition.provides?.some((slot) => slot.id === id) ?? false;
}

function nameOf({ definition }: ResolvedPlugin): string {
  return definition.name;
}

function told(plugin: ResolvedPlugin): string {
  return `${nameOf(plugin)} (${plugin.place})`;
}

function list(words: readonly string[]): string {
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
