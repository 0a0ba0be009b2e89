import type { Duplex } from "node:stream";
import { OpenStarryError } from "../../../core/index.js";

/** What daemon and broker exchange: a JSON object with a few fields, and bytes. */
export interface Frame {
  readonly header: Readonly<Record<string, unknown>>;
  readonly payload: Uint8Array;
}

/** The lengths of header and payload, each 32 bits, big-endian. */
const PREFIX_BYTES = 8;
/** Far above the size of a topic, a filter and a name. */
const MAX_HEADER_BYTES = 64 * 2 ** 10;
const MAX_PAYLOAD_BYTES = 2 * 2 ** 20;

const EMPTY = new Uint8Array();

/** Encodes one frame. Throws `input_invalid` when it exceeds the limits that the receiver enforces. */
export function encodeFrame(header: object, payload: Uint8Array = EMPTY): Buffer {
  const text = Buffer.from(JSON.stringify(header));
  if (text.byteLength > MAX_HEADER_BYTES || payload.byteLength > MAX_PAYLOAD_BYTES) {
    throw new OpenStarryError("input_invalid", {
      detail: `a message of ${payload.byteLength} bytes is too large for the message bus`,
      hint: "messages have at most 1 MiB; put larger content in a file and send its path",
    });
  }
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + text.byteLength + payload.byteLength);
  frame.writeUInt32BE(text.byteLength, 0);
  frame.writeUInt32BE(payload.byteLength, 4);
  text.copy(frame, PREFIX_BYTES);
  frame.set(payload, PREFIX_BYTES + text.byteLength);
  return frame;
}

/** Calls `onFrame` for each frame that arrives. Destroys the socket with an error on bytes that are not a frame. */
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

/** Returns the size of the frame that starts here, or of its prefix while that is incomplete. */
function frameBytes(bytes: Buffer): number {
  if (bytes.byteLength < PREFIX_BYTES) return PREFIX_BYTES;
  const [header, payload] = [bytes.readUInt32BE(0), bytes.readUInt32BE(4)];
  if (header > MAX_HEADER_BYTES || payload > MAX_PAYLOAD_BYTES)
    throw new Error("received bytes that are not a frame of the broker protocol");
  return PREFIX_BYTES + header + payload;
}

function decodeFrame(bytes: Buffer): Frame {
  const payloadStart = PREFIX_BYTES + bytes.readUInt32BE(0);
  const header = JSON.parse(bytes.toString("utf8", PREFIX_BYTES, payloadStart)) as Frame["header"];
  // A copy, since a view of a small payload would keep the whole received chunk in memory.
  return { header, payload: Uint8Array.from(bytes.subarray(payloadStart)) };
}
