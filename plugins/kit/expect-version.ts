import { type Expected, OpenStarryError } from "../../core/index.js";

/** Throws `state_conflict` when the version of a key differs from what a write expects. Version 0: no such key. */
export function expectVersion(key: string, version: number, expected: Expected | undefined): void {
  if (expected === undefined || (expected === "absent" ? 0 : expected) === version) return;
  throw new OpenStarryError("state_conflict", {
    detail: `"${key}" ${version === 0 ? "does not exist" : `has version ${version}`}, expected ${expected === "absent" ? "no such key" : `version ${expected}`}`,
    hint: "read the key again and decide again",
    data: { key, version },
  });
}
