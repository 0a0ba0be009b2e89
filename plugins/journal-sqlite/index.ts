import { z } from "zod";
import { definePlugin, journal } from "../../core/index.js";
import { createSqliteJournal } from "./sqlite-journal.js";

/** The daemon's durable memory: one SQLite file in its home. */
export default definePlugin({
  name: "journal-sqlite",
  apiVersion: 1,
  provides: [journal],
  options: z.strictObject({
    max_events: z.int().min(1).max(100_000_000).default(100_000).meta({
      description: "How many events are kept for streams that resume.",
    }),
  }),
  setup(ctx, options) {
    const sqlite = createSqliteJournal({
      dataDir: ctx.dataDir,
      clock: ctx.clock,
      maxEvents: options.max_events,
      onProblem: (problem) => (problem === undefined ? ctx.daemon.recovered() : ctx.daemon.degraded(problem)),
    });
    ctx.provide(journal, sqlite.journal);
    return { start: sqlite.start, stop: sqlite.stop };
  },
});
