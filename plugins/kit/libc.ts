import { createRequire } from "node:module";
import { constants } from "node:os";

export type NativeFunction = (...args: unknown[]) => number;

/** The C library of this process, by way of koffi (an optional dependency). */
export interface Libc {
  /** A function by its C prototype. Throws where there is none. */
  func(prototype: string): NativeFunction;
  /** Where a buffer lies, for structures that point to others. */
  address(buffer: Buffer): bigint;
  /** What the last call of this thread failed with. */
  errno(): number;
}

interface Koffi {
  load(path: null): { func(prototype: string): NativeFunction };
  address(value: Buffer): bigint | number;
  errno(): number;
}

/** `undefined` where there is no koffi for this machine. */
export function loadLibc(): Libc | undefined {
  try {
    const koffi = createRequire(import.meta.url)("koffi") as Koffi;
    const libc = koffi.load(null);
    return {
      func: (prototype) => libc.func(prototype),
      address: (buffer) => BigInt(koffi.address(buffer)),
      errno: () => koffi.errno(),
    };
  } catch {
    return undefined;
  }
}

export function errnoError(call: string, errno: number): NodeJS.ErrnoException {
  const code = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? String(errno);
  return Object.assign(new Error(`${call} failed: ${code}`), { code, errno });
}
