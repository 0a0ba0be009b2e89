/** Above every key: no UTF-8 has this byte. */
const ABOVE_ALL = Buffer.from([0xff]);

/** The first key that may be listed, in the order of bytes: it begins with `prefix` and lies behind `after`. */
export function firstKey(prefix: string, after?: string): Buffer {
  const begin = Buffer.from(prefix);
  const next = after === undefined ? begin : Buffer.concat([Buffer.from(after), Buffer.from([0])]);
  return Buffer.compare(begin, next) > 0 ? begin : next;
}

/** The first one that does not begin with `prefix` any more. */
export function aboveKeys(prefix: string): Buffer {
  const bytes = Buffer.from(prefix);
  const last = bytes.length - 1;
  if (last < 0) return ABOVE_ALL;
  // UTF-8 has no 0xff, so there is room.
  bytes.writeUInt8(bytes.readUInt8(last) + 1, last);
  return bytes;
}
