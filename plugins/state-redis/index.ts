import { z } from "zod";
import { definePlugin, stateStore } from "../../core/index.js";
import { checkRedis, redisFields } from "../kit/redis/options.js";
import { createRedisStore } from "./redis-store.js";

/** The agents' state on a Redis server: one of the daemon's own, or one that runs. */
export default definePlugin({
  name: "state-redis",
  apiVersion: 1,
  provides: [stateStore],
  options: z
    .strictObject({
      ...redisFields,
      max_deletions: z.int().min(1).max(1_000_000).default(10_000).meta({
        description: "How many deletions of each namespace are kept for watches that resume.",
      }),
    })
    .superRefine(checkRedis),
  setup(ctx, { max_deletions, ...options }) {
    const { store, start, stop } = createRedisStore(ctx, { ...options, maxDeletions: max_deletions });
    ctx.provide(stateStore, store);
    return { start, stop };
  },
});
