import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { definePlugin, stateStore } from "openstarry-daemon";
import { z } from "zod";
import { createLinesStore } from "./store.js";

/** The state store as one file that a person can read: `state-lines/state.jsonl` in the daemon's folder. */
export default definePlugin({
  name: "state-lines",
  apiVersion: 1,
  version: "1.0.0",
  provides: [stateStore],
  options: z.strictObject({}),
  setup(ctx) {
    const folder = join(ctx.dataDir, "state-lines");
    const { store, start, stop } = createLinesStore(join(folder, "state.jsonl"), ctx.clock);
    ctx.provide(stateStore, store);
    return {
      start() {
        mkdirSync(folder, { recursive: true, mode: 0o700 });
        return start();
      },
      stop,
    };
  },
});
