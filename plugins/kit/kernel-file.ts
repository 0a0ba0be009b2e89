import { closeSync, openSync, readSync } from "node:fs";

const buffer = Buffer.allocUnsafe(16_384);

/**
 * The first bytes of a file that the kernel makes up as it is read (proc(5), cgroups(7)), up to 16 KiB; they
 * stand until the next call. Half the time of `readFileSync`, which asks for a size that such a file does
 * not have. Throws as that does.
 */
export function readKernelBytes(path: string): Buffer {
  const fd = openSync(path, "r");
  try {
    return buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, 0));
  } finally {
    closeSync(fd);
  }
}

/** All of such a file. */
export function readKernelFile(path: string): string {
  const fd = openSync(path, "r");
  try {
    let text = "";
    for (;;) {
      const bytes = readSync(fd, buffer, 0, buffer.length, null);
      if (bytes === 0) return text;
      text += buffer.toString("latin1", 0, bytes);
    }
  } finally {
    closeSync(fd);
  }
}
