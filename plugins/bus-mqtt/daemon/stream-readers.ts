import type { BusMessage } from "../../../core/index.js";
import type { DeliveryTag } from "../../kit/bus/consumer-group.js";
import { createSignal } from "../../kit/bus/signal.js";
import type { Frame } from "../ipc/frames.js";
import { decodeError, type Peer } from "../ipc/peer.js";
import { costOf, FIRST_CREDIT, type OpenStream } from "../ipc/stream-credit.js";

export interface StreamItem {
  message: BusMessage;
  /** Present in streams of a consumer group. */
  tag?: DeliveryTag | undefined;
}

interface StreamReader {
  push(item: StreamItem): void;
  end(error?: Error): void;
}

/** Creates the daemon's ends of the broker's streams. Each holds no more items than its stream has credit for. */
export function createStreamReaders() {
  const readers = new Map<number, StreamReader>();
  let lastStream = 0;

  async function* read(
    peer: Peer,
    asked: Omit<OpenStream, "stream" | "credit">,
    signal: AbortSignal,
  ): AsyncGenerator<StreamItem> {
    const stream = ++lastStream;
    const received: StreamItem[] = [];
    let end: { error?: Error | undefined } | undefined;
    const changed = createSignal();
    readers.set(stream, {
      push(item) {
        received.push(item);
        changed.notify();
      },
      end(error) {
        end = { error };
        changed.notify();
      },
    });
    signal.addEventListener("abort", changed.notify);
    peer.notify({ ...asked, stream, credit: FIRST_CREDIT[asked.open] });
    try {
      while (!signal.aborted) {
        const item = received.shift();
        if (item) {
          yield item;
          // Not after an abort: the broker would deliver one more message, and count it as an attempt.
          if (!signal.aborted) peer.notify({ stream, more: costOf(asked.open, item.message.payload) });
        } else if (end) {
          if (end.error) throw end.error;
          return;
        } else {
          await changed.wait();
        }
      }
    } finally {
      signal.removeEventListener("abort", changed.notify);
      readers.delete(stream);
      if (!end) peer.notify({ cancel: stream });
    }
  }

  return {
    read,
    onNotification({ header, payload }: Frame): void {
      const reader = readers.get(Number(header["stream"]));
      const { over, error, message, ticket } = header;
      if (over) reader?.end(error === undefined ? undefined : decodeError(error));
      if (!message) return;
      reader?.push({
        message: { ...(message as Omit<BusMessage, "payload">), payload },
        tag: ticket as DeliveryTag | undefined,
      });
    },
    /** Ends all streams with an error, after the connection was lost. */
    endAll(error: Error): void {
      for (const reader of readers.values()) reader.end(error);
    },
  };
}
