import { isIPv4 } from "node:net";
import { z } from "zod";

const EXPECTED_PORT = 'expected a port from 1 to 65535, or a placeholder such as "{{params.port}}"';

/** A port: a number, or what a placeholder such as `{{params.port}}` was filled with. */
export const port = () =>
  z
    .union([z.number(), z.string()], EXPECTED_PORT)
    .refine((port) => /^[1-9]\d{0,4}$/.test(String(port)) && Number(port) <= 65_535, EXPECTED_PORT)
    .transform(Number);

/**
 * This machine as seen from itself. Nothing else: a template must not be able to make the daemon ask around
 * in a network that its author cannot reach.
 */
export const loopbackHost = () =>
  z
    .string()
    .refine((host) => (isIPv4(host) && host.startsWith("127.")) || ["::1", "localhost"].includes(host), {
      message: "expected an address of this machine itself: 127.0.0.1, ::1 or localhost",
    })
    .transform((host) => (host === "localhost" ? "127.0.0.1" : host))
    .default("127.0.0.1");
