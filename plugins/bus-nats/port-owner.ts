import { readFileSync } from "node:fs";

/** The TCP state LISTEN, as the kernel numbers it. */
const LISTEN = "0A";

/**
 * Returns the user id of the process that listens on a port of 127.0.0.1; `undefined` when none does. Reads
 * `/proc/net/tcp` (proc_net_tcp.txt of the Linux kernel): address and port are hexadecimal, and the user is in the
 * eighth column.
 */
export function ownerOfPort(port: number): number | undefined {
  const address = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  for (const line of readFileSync("/proc/net/tcp", "utf8").split("\n")) {
    const [, local, , state, , , , uid] = line.trim().split(/\s+/);
    if (local === address && state === LISTEN) return Number(uid);
  }
  return undefined;
}
