import { readFileSync } from "node:fs";

/** LISTEN, as the kernel numbers the states of TCP. */
const LISTEN = "0A";

/**
 * Whose process listens at a port of 127.0.0.1, as a user id; `undefined` when nobody does. From
 * `/proc/net/tcp` (proc_net_tcp.txt of the Linux kernel): address and port in hexadecimal, the user in the
 * eighth column.
 */
export function listenerOf(port: number): number | undefined {
  const wanted = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  for (const line of readFileSync("/proc/net/tcp", "utf8").split("\n")) {
    const [, local, , state, , , , uid] = line.trim().split(/\s+/);
    if (local === wanted && state === LISTEN) return Number(uid);
  }
  return undefined;
}
