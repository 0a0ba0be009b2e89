import type { Duplex } from "node:stream";
import { type ErrorCode, isOpenStarryError, OpenStarryError } from "../../../core/index.js";
import { encodeFrame, type Frame, readFrames } from "./frames.js";

export interface PeerOptions {
  socket: Duplex;
  /** What answers a request of the other side. */
  onRequest: (frame: Frame) => Promise<object>;
  /** What the other side says without waiting for an answer. */
  onNote: (frame: Frame) => void;
  /** Once, when the connection is over. */
  onEnd: () => void;
}

/** One end of the connection between driver and broker; both ends are alike. */
export interface Peer {
  /** Rejects with what the other side answers, or with `bus_unavailable` when the connection is over before. */
  request(header: object, payload?: Uint8Array): Promise<Frame["header"]>;
  note(header: object, payload?: Uint8Array): void;
  end(): void;
}

/** With so much to be answered no more is read from the other side. */
const MAX_UNDERWAY_BYTES = 16 * 2 ** 20;

/** Requests carry an `id`, and their answers the same one as `answers`. */
export function createPeer({ socket, onRequest, onNote, onEnd }: PeerOptions): Peer {
  const waiting = new Map<
    number,
    { resolve: (header: Frame["header"]) => void; reject: (e: Error) => void }
  >();
  let lastId = 0;
  let isOver = false;
  let underwayBytes = 0;

  const send = (header: object, payload?: Uint8Array) => void socket.write(encodeFrame(header, payload));

  function onAnswer({ answers, error, ...header }: Frame["header"]): void {
    const asked = waiting.get(Number(answers));
    waiting.delete(Number(answers));
    if (error === undefined) asked?.resolve(header);
    else asked?.reject(decodeError(error));
  }

  function answer(frame: Frame): void {
    const { id: answers } = frame.header;
    const reply = (header: object) => {
      underwayBytes -= frame.payload.byteLength;
      if (isOver) return;
      send({ ...header, answers });
      if (underwayBytes <= MAX_UNDERWAY_BYTES) socket.resume();
    };
    underwayBytes += frame.payload.byteLength;
    if (underwayBytes > MAX_UNDERWAY_BYTES) socket.pause();
    onRequest(frame).then(reply, (error: unknown) => reply({ error: encodeError(error) }));
  }

  readFrames(socket, (frame) => {
    if (frame.header["answers"] !== undefined) onAnswer(frame.header);
    else if (frame.header["id"] !== undefined) answer(frame);
    else onNote(frame);
  });
  socket.on("error", () => {}); // its end is told by "close"
  socket.on("close", () => {
    isOver = true;
    for (const { reject } of waiting.values()) reject(lost());
    waiting.clear();
    onEnd();
  });

  return {
    request(header, payload) {
      if (isOver) return Promise.reject(lost());
      const id = ++lastId;
      send({ ...header, id }, payload);
      return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
    },
    note(header, payload) {
      if (!isOver) send(header, payload);
    },
    end: () => void socket.destroy(),
  };
}

function lost(): OpenStarryError {
  return new OpenStarryError("bus_unavailable", {
    detail: "the connection to the message broker is lost",
    hint: "it comes back by itself; ask again in a moment",
    data: { retry_after_s: 1 },
  });
}

export function encodeError(error: unknown): object {
  if (!isOpenStarryError(error)) return { code: "internal", detail: String(error) };
  const { code, message: detail, hint } = error;
  return { code, detail, hint };
}

export function decodeError(error: unknown): OpenStarryError {
  const { code, detail, hint } = error as { code: ErrorCode; detail: string; hint?: string };
  return new OpenStarryError(code, { detail, ...(hint === undefined ? {} : { hint }) });
}
