/** Random numbers that a seed decides. */
export interface Dice {
  /** At least 0, less than 1. */
  roll(): number;
  /** A whole number of at least 0, less than `sides`. */
  below(sides: number): number;
  chance(probability: number): boolean;
  /** At least 0, less than `max`, and mostly near 0: races live in the first moments. */
  soon(max: number): number;
}

/** The generator is mulberry32. */
export function createDice(seed: number): Dice {
  let state = seed >>> 0;
  const roll = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    roll,
    below: (sides) => Math.floor(roll() * sides),
    chance: (probability) => roll() < probability,
    soon: (max) => roll() ** 3 * max,
  };
}
