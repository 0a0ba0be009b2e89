import { z } from "zod";

/** What the daemon tells the broker, as its one argument: JSON, and no secret in it. */
export const settingsSchema = z.strictObject({
  /** Where `bus.db` and the rest are; made when it is not there. */
  folder: z.string(),
  maxMessages: z.int().min(1),
  maxBytes: z.int().min(1),
  maxGroups: z.int().min(1),
  /** 0: the one of last time, or any. */
  port: z.int().min(0).max(65_535),
  /** Of the daemon: a broker of another version is replaced. */
  version: z.string(),
});
export type Settings = z.output<typeof settingsSchema>;

/** In the broker's folder; the driver connects there. */
export const SOCKET_NAME = "broker.sock";
