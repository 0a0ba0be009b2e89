import { closeSync, readdirSync, readFileSync } from "node:fs";

const CLOSE_ON_EXEC = 0o2000000;

/**
 * Closes the descriptors above 2 that this process was started with, except `keep`: otherwise every agent would inherit
 * them. The close-on-exec flag tells them apart from its own: Node sets it on all that it opens (and on the first
 * inherited ones, which agents then do not see either).
 */
export function closeInheritedDescriptors(keep: readonly number[]): number[] {
  const closed: number[] = [];
  for (const name of readdirSync("/proc/self/fd")) {
    const fd = Number(name);
    if (fd <= 2 || keep.includes(fd)) continue;
    try {
      const flags = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1];
      if (flags === undefined || Number.parseInt(flags, 8) & CLOSE_ON_EXEC) continue;
      closeSync(fd);
      closed.push(fd);
    } catch {
      // The descriptor of the listing itself is closed by now.
    }
  }
  return closed;
}
