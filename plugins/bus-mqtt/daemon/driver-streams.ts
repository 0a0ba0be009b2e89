import type { BusMessage } from "../../../core/index.js";
import type { Ticket } from "../../kit/bus/group.js";
import type { Frame } from "../ipc/frames.js";
import { decodeError, type Peer } from "../ipc/peer.js";
import { costOf, FIRST_CREDIT, type OpenStream } from "../ipc/stream-credit.js";

export interface StreamItem {
  message: BusMessage;
  /** In a group: names the delivery. */
  ticket?: Ticket;
}

interface Reading {
  push(item: StreamItem): void;
  end(error?: Error): void;
}

/** What the broker sends for those who read in this daemon. No more waits here than its stream's credit. */
export function createDriverStreams() {
  const readings = new Map<number, Reading>();
  let lastStream = 0;

  async function* read(
    peer: Peer,
    asked: Omit<OpenStream, "stream" | "credit">,
    signal: AbortSignal,
  ): AsyncGenerator<StreamItem> {
    const stream = ++lastStream;
    const waiting: StreamItem[] = [];
    let end: { error?: Error | undefined } | undefined;
    let wake = () => {};
    readings.set(stream, {
      push(item) {
        waiting.push(item);
        wake();
      },
      end(error) {
        end = { error };
        wake();
      },
    });
    const onAbort = () => wake();
    signal.addEventListener("abort", onAbort);
    peer.note({ ...asked, stream, credit: FIRST_CREDIT[asked.open] });
    try {
      while (!signal.aborted) {
        const item = waiting.shift();
        if (item) {
          yield item;
          // One that has ended meanwhile would be given another message, and would have had it once.
          if (!signal.aborted) peer.note({ stream, more: costOf(asked.open, item.message.payload) });
        } else if (end) {
          if (end.error) throw end.error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      readings.delete(stream);
      if (!end) peer.note({ cancel: stream });
    }
  }

  return {
    read,
    onNote({ header, payload }: Frame): void {
      const reading = readings.get(Number(header["stream"]));
      if (header["over"])
        reading?.end(header["error"] === undefined ? undefined : decodeError(header["error"]));
      if (!header["message"]) return;
      const message = { ...(header["message"] as Omit<BusMessage, "payload">), payload };
      const ticket = header["ticket"] as Ticket | undefined;
      reading?.push({ message, ...(ticket ? { ticket } : {}) });
    },
    /** The connection is over. */
    endAll(error: Error): void {
      for (const reading of readings.values()) reading.end(error);
    },
  };
}
