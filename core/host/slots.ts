import { OpenStarryError } from "../contracts/errors.js";
import type { Arity, Provided, Slot } from "../contracts/slot.js";

/** Who fills what. One registry per kernel. */
export interface SlotRegistry {
  provide<T>(slot: Slot<T>, implementation: T, plugin: string): void;
  use<T, A extends Arity>(slot: Slot<T, A>): Provided<T, A>;
  has(slot: Slot<unknown>): boolean;
  /** After this, `provide` throws. */
  seal(): void;
}

export function createSlotRegistry(): SlotRegistry {
  const filled = new Map<symbol, { plugin: string; implementation: unknown }[]>();
  let sealed = false;
  return {
    provide(slot, implementation, plugin) {
      if (sealed) {
        throw new OpenStarryError("plugin_invalid", {
          detail: `plugin ${plugin} provides ${slot.name} after set-up`,
          hint: "call ctx.provide inside setup()",
        });
      }
      const entries = filled.get(slot.id) ?? [];
      const name = nameOf(implementation);
      const rival =
        slot.arity === "one"
          ? entries[0]
          : slot.arity === "many"
            ? entries.find((entry) => nameOf(entry.implementation) === name)
            : undefined;
      if (rival) {
        const what = slot.arity === "one" ? slot.name : `${slot.name} "${name}"`;
        throw new OpenStarryError("plugin_conflict", {
          detail: `plugins ${rival.plugin} and ${plugin} both provide ${what}`,
          hint: `remove one of them from the config, for example with ["${rival.plugin}", false]`,
        });
      }
      filled.set(slot.id, [...entries, { plugin, implementation }]);
    },
    use<T, A extends Arity>(slot: Slot<T, A>): Provided<T, A> {
      const implementations = (filled.get(slot.id) ?? []).map((entry) => entry.implementation as T);
      if (slot.arity === "chain") return implementations as unknown as Provided<T, A>;
      if (slot.arity === "many") {
        return new Map(implementations.map((it) => [nameOf(it), it])) as unknown as Provided<T, A>;
      }
      const [only] = implementations;
      if (only === undefined) {
        throw new OpenStarryError("slot_empty", {
          detail: `nothing provides ${slot.name}`,
          hint: `add a plugin that provides ${slot.name} to the config`,
        });
      }
      return only as unknown as Provided<T, A>;
    },
    has: (slot) => filled.has(slot.id),
    seal() {
      sealed = true;
    },
  };
}

function nameOf(implementation: unknown): string {
  return String((implementation as { name?: unknown } | undefined)?.name ?? "");
}
