import { expect, test } from "vitest";
import { play } from "./random/play.js";

test("a daemon that is killed at random, under a random mix of requests and mishaps, keeps its word", async () => {
  const played = await play({ rounds: 8, seed: 1 });
  // It has done something.
  expect(played.exits).toBeGreaterThan(10);
  expect(played.lines).toBeGreaterThan(100);
}, 120_000);
