import { z } from "zod";
import { definePlugin, messageBus, size } from "../../core/index.js";
import { checkRedis, redisFields } from "../_shared/redis/options.js";
import { createRedisBus } from "./redis-bus.js";

const options = z
  .strictObject({
    ...redisFields,
    prefix: z
      .string()
      .regex(/^[A-Za-z0-9_.:-]{1,64}$/, "expected 1 to 64 of A-Z a-z 0-9 _ . : -")
      .default("openstarry")
      .meta({ description: "What all names on the server begin with. Daemons of one prefix share the bus." }),
    max_messages: z.int().min(1).default(10_000).meta({ description: "So many messages are kept." }),
    max_size: size()
      .refine((bytes) => bytes > 0, "expected more than nothing")
      .default(64 * 2 ** 20)
      .meta({ description: "So much of topics and payloads is kept." }),
    max_groups: z.int().min(1).default(1_000).meta({ description: "So many groups are remembered." }),
    durable: z.boolean().optional().meta({
      description: "Whether the server of url keeps what it acknowledges. Absent: it is asked.",
    }),
  })
  .superRefine(checkRedis)
  .refine(({ managed, durable }) => !managed || durable === undefined, {
    path: ["durable"],
    message: 'it is for "url": a managed server keeps what it acknowledges',
  });

/** The message bus on a Redis server: one of the daemon's own, or one that runs. */
export default definePlugin({
  name: "bus-redis",
  apiVersion: 1,
  provides: [messageBus],
  options,
  setup(ctx, { max_messages, max_size, max_groups, ...given }) {
    const limits = { maxMessages: max_messages, maxBytes: max_size, maxGroups: max_groups };
    const { bus, start, stop } = createRedisBus(ctx, { ...given, ...limits });
    ctx.provide(messageBus, bus);
    return { start, stop };
  },
});
