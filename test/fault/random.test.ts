import { expect, test } from "vitest";
import { play } from "./random/play.js";

test.each([
  ["with cgroups, where the system has them", true],
  ["without cgroups", false],
])(
  "killed at random, under a random mix of requests and mishaps, the daemon keeps its word (%s)",
  async (_, cgroups) => {
    const played = await play({ rounds: 5, seed: 1, cgroups });
    // It has done something.
    expect(played.exits).toBeGreaterThan(5);
    expect(played.lines).toBeGreaterThan(100);
  },
  180_000,
);
