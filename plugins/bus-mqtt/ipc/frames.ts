import type { Duplex } from "node:stream";
import { OpenStarryError } from "../../../core/index.js";

/** What driver and broker say to each other: a few JSON fields, and bytes. */
export interface Frame {
  readonly header: Readonly<Record<string, unknown>>;
  readonly payload: Uint8Array;
}

/** Lengths of header and payload, 32 bits each, the highest byte first. */
const PREFIX_BYTES = 8;
/** Much more than a topic, a filter and a name can be. */
const MAX_HEADER_BYTES = 64 * 2 ** 10;
const MAX_PAYLOAD_BYTES = 2 * 2 ** 20;

const NOTHING = new Uint8Array();

/** Throws `input_invalid` for what the other side would not take. */
export function encodeFrame(header: object, payload: Uint8Array = NOTHING): Buffer {
  const text = Buffer.from(JSON.stringify(header));
  if (text.byteLength > MAX_HEADER_BYTES || payload.byteLength > MAX_PAYLOAD_BYTES) {
    throw new OpenStarryError("input_invalid", {
      detail: `a message of ${payload.byteLength} bytes is too large for the message bus`,
      hint: "messages have at most 1 MiB; keep larger things in a file, and tell where",
    });
  }
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + text.byteLength + payload.byteLength);
  frame.writeUInt32BE(text.byteLength, 0);
  frame.writeUInt32BE(payload.byteLength, 4);
  text.copy(frame, PREFIX_BYTES);
  frame.set(payload, PREFIX_BYTES + text.byteLength);
  return frame;
}

/** Calls back for each frame that comes. What cannot be a frame ends the connection with an error. */
export function readFrames(socket: Duplex, onFrame: (frame: Frame) => void): void {
  let chunks: Buffer[] = [];
  let bytes = 0;
  let needed = PREFIX_BYTES;

  socket.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.byteLength;
    if (bytes < needed) return;
    let rest = chunks.length === 1 ? chunk : Buffer.concat(chunks);
    try {
      for (;;) {
        needed = frameBytes(rest);
        if (rest.byteLength < needed) break;
        const frame = decodeFrame(rest.subarray(0, needed));
        rest = rest.subarray(needed);
        onFrame(frame);
      }
    } catch (error) {
      socket.destroy(error as Error);
    }
    chunks = [rest];
    bytes = rest.byteLength;
  });
}

/** How many bytes the frame has that begins here, as far as that is known. */
function frameBytes(bytes: Buffer): number {
  if (bytes.byteLength < PREFIX_BYTES) return PREFIX_BYTES;
  const [header, payload] = [bytes.readUInt32BE(0), bytes.readUInt32BE(4)];
  if (header > MAX_HEADER_BYTES || payload > MAX_PAYLOAD_BYTES)
    throw new Error("what came is no frame of this protocol");
  return PREFIX_BYTES + header + payload;
}

function decodeFrame(bytes: Buffer): Frame {
  const begin = PREFIX_BYTES + bytes.readUInt32BE(0);
  const header = JSON.parse(bytes.toString("utf8", PREFIX_BYTES, begin)) as Frame["header"];
  // A copy: a small payload is not to hold on to all that came with it.
  return { header, payload: Uint8Array.from(bytes.subarray(begin)) };
}
