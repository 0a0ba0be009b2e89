import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Two cores, and tests that start processes and then mostly wait for them: many more would make each other late.
    maxWorkers: 3,
  },
});
