import { z } from "zod";
import { definePlugin, stateStore } from "../../core/index.js";
import { checkRedis, redisFields } from "../_shared/redis/options.js";
import { createRedisStore } from "./redis-store.js";

/** The agents' state on a Redis server: one of the daemon's own, or one that runs. */
export default definePlugin({
  name: "state-redis",
  apiVersion: 1,
  provides: [stateStore],
  options: z
    .strictObject({
      ...redisFields,
      prefix: z
        .string()
        .regex(/^[A-Za-z0-9_.:-]{1,64}$/, "expected 1 to 64 of A-Z a-z 0-9 _ . : -")
        .default("openstarry")
        .meta({
          description: "What all names on the server begin with. Daemons of one prefix share their state.",
        }),
      max_deletions: z.int().min(1).max(1_000_000).default(10_000).meta({
        description: "How many deletions of each namespace are kept for watches that resume.",
      }),
      durable: z.boolean().optional().meta({
        description: "Whether the server of url keeps what it acknowledges. Absent: it is asked.",
      }),
    })
    .superRefine(checkRedis)
    .refine(({ managed, durable }) => !managed || durable === undefined, {
      path: ["durable"],
      message: 'it is for "url": a managed server keeps what it acknowledges',
    }),
  setup(ctx, { max_deletions, ...options }) {
    const { store, start, stop } = createRedisStore(ctx, { ...options, maxDeletions: max_deletions });
    ctx.provide(stateStore, store);
    return { start, stop };
  },
});
