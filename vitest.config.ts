import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Two cores, and tests that start processes: more workers only make each other late.
    maxWorkers: 2,
  },
});
