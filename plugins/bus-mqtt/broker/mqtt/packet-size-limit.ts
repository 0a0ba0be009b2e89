import type { Duplex } from "node:stream";

export interface PacketSizeLimits {
  /** The size limit of a PUBLISH that is not the first packet, in bytes after its fixed header. */
  publishBytes: number;
  /** The size limit of all other packets. */
  bytes: number;
}

/**
 * Calls `onTooLarge` as soon as a packet announces a size above the limits (MQTT 3.1.1, 2.2.3 Remaining Length). The
 * parser behind the socket buffers whatever it gets, so the check wraps `read`, by which the parser takes its data.
 */
export function limitPacketSize(socket: Duplex, limits: PacketSizeLimits, onTooLarge: () => void): void {
  const isWithinLimits = createPacketSizeCheck(limits);
  const read = socket.read.bind(socket);
  socket.read = (size?: number) => {
    const chunk: unknown = read(size);
    if (!(chunk instanceof Uint8Array) || isWithinLimits(chunk)) return chunk;
    onTooLarge();
    return null;
  };
}

/** The packet type in the upper half of a packet's first byte (2.2.1). */
const PUBLISH = 3;

/** Returns a function that takes a stream chunk by chunk, and returns whether its packets are within the limits. */
export function createPacketSizeCheck({
  publishBytes,
  bytes,
}: PacketSizeLimits): (chunk: Uint8Array) => boolean {
  let max = bytes;
  let isFirst = true;
  /** How many bytes of the current packet's body are still to come. */
  let left = 0;
  /** While the length is read: its value so far, and the shift of its next seven bits. */
  let length = 0;
  let shift: number | undefined;

  return (chunk) => {
    for (let at = 0; at < chunk.length; ) {
      if (left > 0) {
        const here = Math.min(left, chunk.length - at);
        left -= here;
        at += here;
      } else if (shift === undefined) {
        max = !isFirst && (chunk[at] ?? 0) >> 4 === PUBLISH ? publishBytes : bytes;
        isFirst = false;
        length = 0;
        shift = 0;
        at += 1;
      } else {
        const byte = chunk[at++] ?? 0;
        length += (byte & 0x7f) << shift;
        shift += 7;
        if (length > max || shift > 28) return false;
        if (byte < 0x80) {
          left = length;
          shift = undefined;
        }
      }
    }
    return true;
  };
}
