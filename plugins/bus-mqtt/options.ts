import { z } from "zod";
import { size } from "../../core/index.js";

export const optionsSchema = z.strictObject({
  max_messages: z.int().min(1).default(100_000).meta({ description: "So many messages are kept." }),
  max_size: size()
    .refine((bytes) => bytes > 0, "expected more than nothing")
    .default(256 * 2 ** 20)
    .meta({ description: "So much of topics and payloads is kept." }),
  max_groups: z.int().min(1).default(1_000).meta({ description: "So many groups are remembered." }),
  port: z.int().min(0).max(65_535).default(0).meta({
    description: "Where MQTT clients of this machine connect; 0: any that is free, and the same again.",
  }),
  eager: z.boolean().default(false).meta({ description: "Start the broker with the daemon." }),
});
export type Options = z.output<typeof optionsSchema>;
