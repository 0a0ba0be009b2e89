import type { Socket } from "node:net";

/** One line of JSON. */
export type Frame = Record<string, unknown>;

/** Calls back for each line. A peer that sends what is none, or too much without an end, is cut off. */
export function onFrames(socket: Socket, maxBytes: () => number, callback: (frame: Frame) => void): void {
  let parts: Buffer[] = [];
  let size = 0;
  socket.on("data", (chunk: Buffer) => {
    let rest = chunk;
    for (let end = rest.indexOf(10); end !== -1 && !socket.destroyed; end = rest.indexOf(10)) {
      const line = Buffer.concat([...parts, rest.subarray(0, end)]);
      [parts, size, rest] = [[], 0, rest.subarray(end + 1)];
      const frame = line.length <= maxBytes() ? parsed(line) : undefined;
      if (!frame) return void socket.destroy();
      callback(frame);
    }
    parts.push(rest);
    size += rest.length;
    if (size > maxBytes()) socket.destroy();
  });
}

export function sendFrame(socket: Socket, frame: Frame): void {
  if (!socket.destroyed) socket.write(`${JSON.stringify(frame)}\n`);
}

function parsed(line: Buffer): Frame | undefined {
  try {
    const value: unknown = JSON.parse(line.toString());
    return typeof value === "object" && value !== null ? (value as Frame) : undefined;
  } catch {
    return undefined;
  }
}
