import { z } from "zod";
import { definePlugin, stateStore } from "../../core/index.js";
import { createSqliteStore } from "./sqlite-store.js";

/** The agents' durable state: one SQLite file in the daemon's home. */
export default definePlugin({
  name: "state-sqlite",
  apiVersion: 1,
  provides: [stateStore],
  options: z.strictObject({
    max_deletions: z.int().min(1).max(1_000_000).default(10_000).meta({
      description: "How many deletions of each namespace are kept for watches that resume.",
    }),
  }),
  setup(ctx, options) {
    const { store, start, stop } = createSqliteStore({
      dataDir: ctx.dataDir,
      clock: ctx.clock,
      maxDeletions: options.max_deletions,
      onProblem: (problem) => (problem === undefined ? ctx.daemon.recovered() : ctx.daemon.degraded(problem)),
    });
    ctx.provide(stateStore, store);
    return { start, stop };
  },
});
