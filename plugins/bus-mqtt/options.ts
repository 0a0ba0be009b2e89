import { z } from "zod";
import { limitFields } from "../kit/bus/limits.js";

export const optionsSchema = z.strictObject({
  ...limitFields({ messages: 100_000, mib: 256 }),
  port: z.int().min(0).max(65_535).default(0).meta({
    description: "Where MQTT clients of this machine connect; 0: any that is free, and the same again.",
  }),
  eager: z.boolean().default(false).meta({ description: "Start the broker with the daemon." }),
});
export type Options = z.output<typeof optionsSchema>;
