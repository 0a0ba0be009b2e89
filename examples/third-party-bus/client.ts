import { connect } from "node:net";
import type { BusDelivery, BusMessage, MessageBus } from "openstarry-daemon";
import type { Item, Message } from "./engine.js";
import { type Frame, onFrames, sendFrame } from "./wire.js";

export type Fail = (code: "bus_unavailable" | "input_invalid" | "forbidden", detail: string) => Error;

/** One way to the broker. Calls reject with `bus_unavailable` once it is gone. */
export interface Connection {
  /** Sent before this returns, so that calls take effect in the order in which they are made. */
  call(frame: Frame): Promise<Frame>;
  isOpen(): boolean;
  /** Resolves when it is gone, for whatever reason. */
  readonly closed: Promise<void>;
  close(): void;
}

export type LineBus = Pick<MessageBus, "publish" | "subscribe" | "consume" | "removeGroup" | "drop">;

const plainError: Fail = (code, detail) => Object.assign(new Error(detail), { code });

/** For an agent, with its `OPENSTARRY_BUS_URL`: `unix:PATH?agent=ID&run=ID&key=KEY`. */
export async function connectByUrl(url: string): Promise<LineBus & Pick<Connection, "closed" | "close">> {
  const { pathname, searchParams } = new URL(url);
  const connection = await connectBus(decodeURIComponent(pathname), Object.fromEntries(searchParams));
  const { closed, close } = connection;
  return { ...busOver(() => connection), closed, close };
}

/** Rejects with `bus_unavailable` when there is no broker, or it does not know the key. */
export async function connectBus(path: string, hello: Frame, fail: Fail = plainError): Promise<Connection> {
  const waiting = new Map<unknown, { resolve: (frame: Frame) => void; reject: (error: Error) => void }>();
  const socket = connect(path);
  let ids = 0;
  let isOpen = true;
  const gone = () => fail("bus_unavailable", "the connection to the bus is closed");
  // What the error was does not matter: "close" follows.
  socket.on("error", () => {});
  const closed = new Promise<void>((resolve) => {
    socket.on("close", () => {
      isOpen = false;
      for (const { reject } of waiting.values()) reject(gone());
      waiting.clear();
      resolve();
    });
  });
  const anySize = () => Number.POSITIVE_INFINITY;
  onFrames(socket, anySize, ({ id, error, detail, ...answer }) => {
    const asked = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) asked?.resolve(answer);
    else asked?.reject(fail(error as "forbidden", String(detail)));
  });
  const call = (frame: Frame) =>
    new Promise<Frame>((resolve, reject) => {
      if (!isOpen) return reject(gone());
      ids += 1;
      waiting.set(ids, { resolve, reject });
      sendFrame(socket, { ...frame, id: ids });
    });

  await call({ ...hello, op: "hello" });
  return { call, isOpen: () => isOpen, closed, close: () => void socket.destroy() };
}

/** The bus as the contract has it. `open` answers the connection, or throws when there is none. */
export function busOver(open: () => Connection, fail: Fail = plainError): LineBus {
  let readers = 0;

  async function* read<T>(opening: Frame, signal: AbortSignal, as: (item: Item) => T): AsyncGenerator<T> {
    if (signal.aborted) return;
    // A reader belongs to its connection: on another one nobody would know it.
    const { call } = open();
    readers += 1;
    const reader = readers;
    const close = () => void call({ op: "close", reader }).catch(() => {});
    signal.addEventListener("abort", close);
    try {
      const opened = call({ ...opening, op: "open", reader });
      let next = call({ op: "next", reader });
      next.catch(() => {});
      await opened;
      for (;;) {
        const { item } = await next;
        if (item === undefined || signal.aborted) return;
        yield as(item as Item);
        if (signal.aborted) return;
        next = call({ op: "next", reader });
      }
    } finally {
      signal.removeEventListener("abort", close);
      close();
    }
  }

  function startOf(after: string | undefined): Frame {
    if (after === undefined || /^\d{1,16}$/.test(after)) return after === undefined ? {} : { after };
    throw fail("input_invalid", '"after" is not a position of this bus');
  }

  return {
    async publish({ payload, ...message }, { keep = true } = {}) {
      const base64 = Buffer.from(payload).toString("base64");
      const { position } = await open().call({ ...message, op: "publish", payload: base64, keep });
      return position === undefined ? {} : { position: String(position) };
    },
    subscribe: ({ filter, after, signal }) =>
      read({ filter, ...startOf(after) }, signal, ({ message }) => received(message)),
    consume({ filter, group, after, ackWaitMs: ack_wait_ms, maxInFlight: max_in_flight, signal }) {
      const opening = { filter, group, ack_wait_ms, max_in_flight, ...startOf(after) };
      const settle = async (how: Frame) => void (await open().call({ filter, group, ...how }));
      return read(
        opening,
        signal,
        ({ message, attempt = 1, token }): BusDelivery => ({
          message: received(message),
          attempt,
          ack: () => settle({ op: "ack", token }),
          nack: (delay_ms = 0) => settle({ op: "nack", token, delay_ms }),
        }),
      );
    },
    removeGroup: async ({ filter, group }) => void (await open().call({ op: "remove_group", filter, group })),
    drop: async (filter) => void (await open().call({ op: "drop", filter })),
  };
}

function received({ payload, ...message }: Message): BusMessage {
  return { ...message, payload: new Uint8Array(Buffer.from(payload, "base64")) };
}
