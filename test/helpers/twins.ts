import { expect } from "vitest";

/** A number, and the version that the store gave it. */
export interface Kept {
  value: number;
  version: number;
}

/**
 * Of keys that were written two at a time, `LANE/N` with `LANE/twin/N`: what was acknowledged is there, or something
 * later, and what was under way is there as a whole or not at all.
 */
export function expectTwins(acknowledged: ReadonlyMap<string, Kept>, found: ReadonlyMap<string, Kept>): void {
  for (const [key, last] of acknowledged) {
    const there = found.get(key);
    if (there?.version === last.version) expect(there).toEqual(last);
    else expect(there?.version).toBeGreaterThan(last.version);
  }
  for (const [key, { value }] of found) {
    const [index, number] = key.split("/");
    if (number !== "twin") expect(found.get(`${index}/twin/${number}`)?.value).toBe(value);
  }
}
