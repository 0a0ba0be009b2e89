import { isIPv4 } from "node:net";
import { z } from "zod";

const EXPECTED_PORT = 'expected a port from 1 to 65535, or a placeholder such as "{{params.port}}"';

/** Validates a port: a number, or text as a placeholder such as `{{params.port}}` leaves it. */
export const port = () =>
  z
    .union([z.number(), z.string()], EXPECTED_PORT)
    .refine((port) => /^[1-9]\d{0,4}$/.test(String(port)) && Number(port) <= 65_535, EXPECTED_PORT)
    .transform(Number);

/**
 * Validates a loopback address. No other address is allowed: a template must not make the daemon send requests to a
 * network that the template's author cannot reach.
 */
export const loopbackHost = () =>
  z
    .string()
    .refine((host) => (isIPv4(host) && host.startsWith("127.")) || ["::1", "localhost"].includes(host), {
      message: "expected an address of this machine itself: 127.0.0.1, ::1 or localhost",
    })
    .transform((host) => (host === "localhost" ? "127.0.0.1" : host))
    .default("127.0.0.1");
