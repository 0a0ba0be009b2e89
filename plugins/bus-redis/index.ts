import { z } from "zod";
import { definePlugin, messageBus } from "../../core/index.js";
import { limitFields, limitsOf } from "../kit/bus/limits.js";
import { checkRedisOptions, redisFields } from "../kit/redis/options.js";
import { createRedisBus } from "./redis-bus.js";

/** The message bus on a Redis server, managed or external. */
export default definePlugin({
  name: "bus-redis",
  apiVersion: 1,
  provides: [messageBus],
  options: z
    .strictObject({ ...redisFields, ...limitFields({ messages: 10_000, mib: 64 }) })
    .superRefine(checkRedisOptions),
  setup(ctx, options) {
    const { bus, start, stop } = createRedisBus(ctx, { ...options, ...limitsOf(options) });
    ctx.provide(messageBus, bus);
    return { start, stop };
  },
});
