import { OpenStarryError } from "./errors.js";

/**
 * How many may provide a slot: `one` implementation; `many`, told apart by their `name`; or a
 * `chain`, asked in order.
 */
export type Arity = "one" | "many" | "chain";

/**
 * A typed place for an implementation. Identified by its registered name, never by object identity,
 * so that a plugin with a nested copy of this package still fills the same slot.
 */
export interface Slot<T, A extends Arity = Arity> {
  readonly name: string;
  readonly arity: A;
  readonly id: symbol;
  /** Carries the type only. */
  readonly implementation?: T;
}

/** What `use` answers: the implementation, the implementations by name, or all in order. */
export type Provided<T, A extends Arity> = A extends "one"
  ? T
  : A extends "many"
    ? ReadonlyMap<string, T>
    : readonly T[];

export function defineSlot<T, A extends Arity = "one">(name: string, arity: A): Slot<T, A> {
  return Object.freeze({ name, arity, id: Symbol.for(`openstarry.slot.${name}`) });
}

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
