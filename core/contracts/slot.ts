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
