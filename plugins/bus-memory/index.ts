import { z } from "zod";
import { definePlugin, messageBus } from "../../core/index.js";
import { limitFields, limitsOf } from "../kit/bus/limits.js";
import { createMemoryBus } from "./memory-bus.js";

/** The message bus in memory: the reference implementation, and for tests. It loses everything with the daemon. */
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
