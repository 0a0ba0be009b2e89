import { z } from "zod";
import { definePlugin, journal } from "../../core/index.js";
import { createMemoryJournal } from "./memory-journal.js";

/** A journal that forgets everything with the daemon: for tests, and for systems that may. */
export default definePlugin({
  name: "journal-memory",
  apiVersion: 1,
  provides: [journal],
  options: z.strictObject({
    max_events: z.int().min(1).max(10_000_000).default(10_000).meta({
      description: "How many events are kept for streams that resume.",
    }),
  }),
  setup(ctx, options) {
    const memory = createMemoryJournal({ now: () => ctx.clock.now(), maxEvents: options.max_events });
    ctx.provide(journal, memory.journal);
    return { start: memory.start, stop: memory.stop };
  },
});
