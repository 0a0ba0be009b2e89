import { z } from "zod";
import { definePlugin, messageBus } from "../../core/index.js";
import { limitFields, limitsOf } from "../kit/bus/limits.js";
import { createMemoryBus } from "./memory-bus.js";

/** A message bus that forgets everything with the daemon: the reference, and for tests. */
export default definePlugin({
  name: "bus-memory",
  apiVersion: 1,
  provides: [messageBus],
  options: z.strictObject(limitFields({ messages: 10_000, mib: 64 })),
  setup(ctx, options) {
    const { bus, stop } = createMemoryBus(ctx.clock, limitsOf(options));
    ctx.provide(messageBus, bus);
    return { stop };
  },
});
