import { z } from "zod";
import { definePlugin, messageBus, size } from "../../core/index.js";
import { checkRedis, redisFields } from "../_shared/redis/options.js";
import { createRedisServer } from "../_shared/redis/redis-server.js";
import { createRedisBus } from "./redis-bus.js";

const options = z
  .strictObject({
    ...redisFields,
    prefix: z
      .string()
      .regex(/^[\w.:-]{1,64}$/, "expected 1 to 64 letters, digits, '.', '_', ':' or '-'")
      .default("openstarry")
      .meta({ description: "What all names on the server begin with. Daemons that share it share the bus." }),
    max_messages: z.int().min(1).default(10_000).meta({ description: "So many messages are kept." }),
    max_size: size()
      .refine((bytes) => bytes > 0, "expected more than nothing")
      .default(64 * 2 ** 20)
      .meta({ description: "So much of topics and payloads is kept." }),
    max_groups: z.int().min(1).default(1_000).meta({ description: "So many groups are remembered." }),
  })
  .superRefine(checkRedis);

/** The message bus on a Redis server: one of the daemon's own, or one that runs. */
export default definePlugin({
  name: "bus-redis",
  apiVersion: 1,
  provides: [messageBus],
  options,
  setup(ctx, { prefix, max_messages, max_size, max_groups, ...choice }) {
    const server = createRedisServer(ctx, choice);
    const { bus, open, stop } = createRedisBus({
      server,
      clock: ctx.clock,
      prefix,
      maxMessages: max_messages,
      maxBytes: max_size,
      maxGroups: max_groups,
      isDurable: () => choice.managed,
    });
    ctx.provide(messageBus, bus);
    return {
      async start() {
        await server.start();
        await open();
      },
      async stop() {
        await stop();
        server.stop();
      },
    };
  },
});
