import { z } from "zod";
import { definePlugin, stateStore } from "../../core/index.js";
import { createMemoryStore } from "./memory-store.js";

/** A state store that forgets everything with the daemon: the reference, and for tests. */
export default definePlugin({
  name: "state-memory",
  apiVersion: 1,
  provides: [stateStore],
  options: z.strictObject({}),
  setup(ctx) {
    const { store, start, stop } = createMemoryStore(ctx.clock);
    ctx.provide(stateStore, store);
    return { start, stop };
  },
});
