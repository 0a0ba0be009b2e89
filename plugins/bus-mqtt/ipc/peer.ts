import type { Duplex } from "node:stream";
import { type ErrorCode, isOpenStarryError, OpenStarryError } from "../../../core/index.js";
import { encodeFrame, type Frame, readFrames } from "./frames.js";

export interface PeerOptions {
  socket: Duplex;
  /** Answers a request of the other side. */
  onRequest: (frame: Frame) => Promise<object>;
  /** Handles a frame that the other side wants no answer to. */
  onNotification: (frame: Frame) => void;
  /** Called once, when the connection is closed. */
  onEnd: () => void;
}

/** One end of the connection between daemon and broker. Both ends have the same abilities. */
export interface Peer {
  /** Resolves with the answer. Rejects with the other side's error, or `bus_unavailable` if the connection is lost. */
  request(header: object, payload?: Uint8Array): Promise<Frame["header"]>;
  notify(header: object, payload?: Uint8Array): void;
  end(): void;
}

/** While more bytes than this wait to be processed, nothing more is read from the other side. */
const MAX_UNANSWERED_BYTES = 16 * 2 ** 20;

/** Creates one end on a socket. A request carries an `id`, and its answer the same number as `answers`. */
export function createPeer({ socket, onRequest, onNotification, onEnd }: PeerOptions): Peer {
  const requests = new Map<
    number,
    { resolve: (header: Frame["header"]) => void; reject: (e: Error) => void }
  >();
  let lastId = 0;
  let isOver = false;
  let unansweredBytes = 0;

  const send = (header: object, payload?: Uint8Array) => void socket.write(encodeFrame(header, payload));

  function onAnswer({ answers, error, ...header }: Frame["header"]): void {
    const request = requests.get(Number(answers));
    requests.delete(Number(answers));
    if (error === undefined) request?.resolve(header);
    else request?.reject(decodeError(error));
  }

  function answer(frame: Frame): void {
    const { id: answers } = frame.header;
    const reply = (header: object) => {
      unansweredBytes -= frame.payload.byteLength;
      if (isOver) return;
      send({ ...header, answers });
      if (unansweredBytes <= MAX_UNANSWERED_BYTES) socket.resume();
    };
    unansweredBytes += frame.payload.byteLength;
    if (unansweredBytes > MAX_UNANSWERED_BYTES) socket.pause();
    onRequest(frame).then(reply, (error: unknown) => reply({ error: encodeError(error) }));
  }

  readFrames(socket, (frame) => {
    if (frame.header["answers"] !== undefined) onAnswer(frame.header);
    else if (frame.header["id"] !== undefined) answer(frame);
    else onNotification(frame);
  });
  socket.on("error", () => {}); // "close" follows
  socket.on("close", () => {
    isOver = true;
    for (const { reject } of requests.values()) reject(connectionLost());
    requests.clear();
    onEnd();
  });

  return {
    request(header, payload) {
      if (isOver) return Promise.reject(connectionLost());
      const id = ++lastId;
      send({ ...header, id }, payload);
      return new Promise((resolve, reject) => requests.set(id, { resolve, reject }));
    },
    notify(header, payload) {
      if (!isOver) send(header, payload);
    },
    end: () => void socket.destroy(),
  };
}

function connectionLost(): OpenStarryError {
  return new OpenStarryError("bus_unavailable", {
    detail: "lost the connection to the message broker",
    hint: "the daemon reconnects by itself; try again in a moment",
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
  return new OpenStarryError(code, { detail, hint });
}
