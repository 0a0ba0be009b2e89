import { z } from "zod";
import { definePlugin, messageBus, size } from "../../core/index.js";
import { createMemoryBus } from "./memory-bus.js";

const options = z.strictObject({
  max_messages: z.int().min(1).default(10_000).meta({ description: "So many messages are kept." }),
  max_size: size()
    .refine((bytes) => bytes > 0, "expected more than nothing")
    .default(64 * 2 ** 20)
    .meta({ description: "So much of topics and payloads is kept." }),
  max_groups: z.int().min(1).default(1_000).meta({ description: "So many groups are remembered." }),
});

/** A message bus that forgets everything with the daemon: the reference, and for tests. */
export default definePlugin({
  name: "bus-memory",
  apiVersion: 1,
  provides: [messageBus],
  options,
  setup(ctx, { max_messages, max_size, max_groups }) {
    const { bus, stop } = createMemoryBus(ctx.clock, {
      maxMessages: max_messages,
      maxBytes: max_size,
      maxGroups: max_groups,
    });
    ctx.provide(messageBus, bus);
    return { stop };
  },
});
