/** Sorts above every key: UTF-8 never contains this byte. */
const ABOVE_ALL = Buffer.from([0xff]);

/** Returns the lower bound of the keys that begin with `prefix` and sort behind `after`, in the order of bytes. */
export function firstKey(prefix: string, after?: string): Buffer {
  const begin = Buffer.from(prefix);
  const next = after === undefined ? begin : Buffer.concat([Buffer.from(after), Buffer.from([0])]);
  return Buffer.compare(begin, next) > 0 ? begin : next;
}

/** Returns the upper bound, exclusive, of the keys that begin with `prefix`. */
export function aboveKeys(prefix: string): Buffer {
  const bytes = Buffer.from(prefix);
  const last = bytes.length - 1;
  if (last < 0) return ABOVE_ALL;
  // Does not overflow: UTF-8 never contains 0xff.
  bytes.writeUInt8(bytes.readUInt8(last) + 1, last);
  return bytes;
}
