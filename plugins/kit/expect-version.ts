import { type Expected, OpenStarryError } from "../../core/index.js";

/** Throws `state_conflict` when a key of the state store has another version than a write expects; 0 is none. */
export function expectVersion(key: string, version: number, expected: Expected | undefined): void {
  if (expected === undefined || (expected === "absent" ? 0 : expected) === version) return;
  throw new OpenStarryError("state_conflict", {
    detail: `"${key}" ${version === 0 ? "is not there" : `has version ${version}`}, expected ${expected === "absent" ? "that it is absent" : `version ${expected}`}`,
    hint: "read it again, and decide anew",
    data: { key, version },
  });
}
