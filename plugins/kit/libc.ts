import { createRequire } from "node:module";
import { constants } from "node:os";

export type NativeFunction = (...args: unknown[]) => number;

/** The C library of this process, called through koffi (an optional dependency). */
export interface Libc {
  /** Returns a function by its C prototype. Throws when the library lacks it. */
  func(prototype: string): NativeFunction;
  /** Returns the address of a buffer, for structures with pointers. */
  address(buffer: Buffer): bigint;
  /** Returns the errno of the last call of this thread. */
  errno(): number;
}

interface Koffi {
  load(path: null): { func(prototype: string): NativeFunction };
  address(value: Buffer): bigint | number;
  errno(): number;
}

/** Loads the C library; `undefined` when koffi is not installed or does not support this machine. */
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

/** Creates an error with `code` and `errno`, as Node does. */
export function errnoError(call: string, errno: number): NodeJS.ErrnoException {
  const code = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? String(errno);
  return Object.assign(new Error(`${call} failed: ${code}`), { code, errno });
}
