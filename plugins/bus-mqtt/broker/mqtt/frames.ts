import type { Duplex } from "node:stream";

export interface FrameLimits {
  /** Of a PUBLISH that is not the first packet, in bytes after its fixed header. */
  publishBytes: number;
  /** Of all others. */
  bytes: number;
}

/**
 * Calls `onTooLarge` as soon as a packet announces that it is larger (MQTT 3.1.1, 2.2.3 Remaining Length), before
 * any of it is held: the parser behind it takes what comes. It is asked for the socket's data by `read`.
 */
export function limitFrames(socket: Duplex, limits: FrameLimits, onTooLarge: () => void): void {
  const fits = createFrameCheck(limits);
  const read = socket.read.bind(socket);
  socket.read = (size?: number) => {
    const chunk: unknown = read(size);
    if (!(chunk instanceof Uint8Array) || fits(chunk)) return chunk;
    onTooLarge();
    return null;
  };
}

/** The type of a packet stands in the upper half of its first byte (2.2.1). */
const PUBLISH = 3;

/** Whether the packets that a stream consists of are within limits, as far as they have come. */
export function createFrameCheck({ publishBytes, bytes }: FrameLimits): (chunk: Uint8Array) => boolean {
  let max = bytes;
  let isFirst = true;
  /** Bytes of the packet's body that are still to come. */
  let left = 0;
  /** While its length is read: so much of it, and where the next seven bits go. */
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
