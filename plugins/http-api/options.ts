import { isIP } from "node:net";
import { z } from "zod";
import { duration, size } from "../../core/index.js";

/** A name as a Host header carries it, with or without a port. */
const HOST = /^(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?)(:\d{1,5})?$/;

export const optionsSchema = z
  .strictObject({
    /** The address to listen at: a loopback one, unless `allow_remote`. */
    host: z
      .string()
      .default("127.0.0.1")
      .transform((host) => (host.toLowerCase() === "localhost" ? "127.0.0.1" : host))
      .refine((host) => isIP(host) !== 0, "expected an IP address, such as 127.0.0.1"),
    /** 0 takes any free one, and the same again at the next start. */
    port: z.int().min(0).max(65_535).default(5050),
    /** Also at `daemon.sock` in the daemon's folder. */
    socket: z.boolean().default(true),
    allow_remote: z.boolean().default(false),
    /** Names that requests may carry in their Host header, besides the loopback ones. */
    allowed_hosts: z
      .array(z.string().regex(HOST, "expected a host name or address, with or without a port"))
      .max(100)
      .default([]),
    body_limit: size().default(5 * 2 ** 20),
    /** For each of the two listeners. Beyond it, the connection that has been idle longest is closed. */
    max_connections: z.int().min(1).max(100_000).default(2_000),
    /** How long a client may take to send a request. */
    request_timeout: duration().default(30_000),
    /** Open streams of one token; and, of an agent's token, requests under way. */
    max_streams: z.int().min(1).max(10_000).default(100),
  })
  .superRefine((options, issues) => {
    if (isLoopback(options.host)) return;
    if (!options.allow_remote) {
      issues.addIssue({
        code: "custom",
        path: ["host"],
        message: `${options.host} can be reached from other machines, and the API has no encryption; give a loopback address such as 127.0.0.1, or set allow_remote`,
      });
    } else if (options.allowed_hosts.length === 0) {
      issues.addIssue({
        code: "custom",
        path: ["allowed_hosts"],
        message: `name the hosts that clients use to reach ${options.host}; without them every request is refused`,
      });
    }
  });

export type Options = z.output<typeof optionsSchema>;

export function isLoopback(host: string): boolean {
  return host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}
