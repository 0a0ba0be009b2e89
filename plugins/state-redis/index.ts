import { z } from "zod";
import { definePlugin, stateStore } from "../../core/index.js";
import { checkRedisOptions, redisFields } from "../kit/redis/options.js";
import { createRedisStore } from "./redis-store.js";

/** The agents' state on a Redis server, managed or external. */
export default definePlugin({
  name: "state-redis",
  apiVersion: 1,
  provides: [stateStore],
  options: z
    .strictObject({
      ...redisFields,
      max_deletions: z.int().min(1).max(1_000_000).default(10_000).meta({
        description: "How many deletions of each namespace are remembered for watches that resume.",
      }),
    })
    .superRefine(checkRedisOptions),
  setup(ctx, { max_deletions, ...options }) {
    const { store, start, stop } = createRedisStore(ctx, { ...options, maxDeletions: max_deletions });
    ctx.provide(stateStore, store);
    return { start, stop };
  },
});
