import { z } from "zod";
import { limitFields } from "../kit/bus/limits.js";

export const optionsSchema = z.strictObject({
  ...limitFields({ messages: 100_000, mib: 256 }),
  port: z.int().min(0).max(65_535).default(0).meta({
    description: "Port for MQTT clients on 127.0.0.1; 0: any free port, the same one at each start.",
  }),
  eager: z
    .boolean()
    .default(false)
    .meta({ description: "Start the broker with the daemon instead of on first use." }),
});
export type Options = z.output<typeof optionsSchema>;
