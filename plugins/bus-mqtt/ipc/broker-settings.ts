import { z } from "zod";

/** The settings that the daemon passes to the broker as its one argument, in JSON. They hold no secret. */
export const settingsSchema = z.strictObject({
  /** The folder of `bus.db` and the broker's other files. Created when missing. */
  folder: z.string(),
  maxMessages: z.int().min(1),
  maxBytes: z.int().min(1),
  maxGroups: z.int().min(1),
  /** 0: the port of last time, or any free one. */
  port: z.int().min(0).max(65_535),
  /** The daemon's version. A broker of another version is replaced, since its arguments differ. */
  version: z.string(),
});
export type BrokerSettings = z.output<typeof settingsSchema>;

/** The name of the socket in the broker's folder to which the daemon connects. */
export const SOCKET_NAME = "broker.sock";
