import type { BusMessage } from "../../../core/index.js";
import type { BusEngine } from "../../kit/bus/bus-engine.js";
import type { DeliveryTag } from "../../kit/bus/consumer-group.js";
import { createSignal } from "../../kit/bus/signal.js";
import { encodeError, type Peer } from "../ipc/peer.js";
import { costOf, type OpenStream } from "../ipc/stream-credit.js";

/** Creates the broker's ends of the streams that one daemon reads. Each sends as far as it has credit. */
export function createStreamSenders(bus: BusEngine, peer: () => Peer) {
  const senders = new Map<number, { over: AbortController; more: (credit: number) => void }>();

  async function send(asked: OpenStream, signal: AbortSignal, credit: Credit): Promise<void> {
    const { open: kind, stream } = asked;
    for await (const { message, tag } of itemsOf(bus, asked, signal)) {
      const { payload, ...rest } = message;
      peer().notify({ stream, message: rest, ticket: tag }, payload);
      await credit.take(costOf(kind, payload));
    }
  }

  return {
    open(asked: OpenStream): void {
      const over = new AbortController();
      const credit = createCredit(asked.credit, over.signal);
      senders.set(asked.stream, { over, more: credit.add });
      const end = (error?: object) => {
        senders.delete(asked.stream);
        if (!over.signal.aborted) peer().notify({ stream: asked.stream, over: true, error });
      };
      send(asked, over.signal, credit).then(
        () => end(),
        (error: unknown) => end(encodeError(error)),
      );
    },
    more: (stream: number, credit: number) => senders.get(stream)?.more(credit),
    cancel(stream: number): void {
      senders.get(stream)?.over.abort();
      senders.delete(stream);
    },
    /** Ends all streams, after the connection was lost. */
    cancelAll(): void {
      for (const { over } of senders.values()) over.abort();
      senders.clear();
    },
  };
}

type Item = { message: BusMessage; tag?: DeliveryTag };

function itemsOf(bus: BusEngine, { open, ...asked }: OpenStream, signal: AbortSignal): AsyncIterable<Item> {
  const { filter, after } = asked;
  if (open === "subscribe") return messages(bus.subscribe({ filter, after, signal }));
  const { group, ackWaitMs, maxInFlight } = asked as Required<typeof asked>;
  return bus.consume({ filter, after, signal, group, ackWaitMs, maxInFlight });
}

async function* messages(source: AsyncIterable<BusMessage>): AsyncGenerator<Item> {
  for await (const message of source) yield { message };
}

interface Credit {
  add(more: number): void;
  /** Uses credit. Resolves when some is left, or when the stream is cancelled. */
  take(cost: number): Promise<void>;
}

function createCredit(first: number, signal: AbortSignal): Credit {
  let left = first;
  const changed = createSignal();
  signal.addEventListener("abort", changed.notify, { once: true });
  return {
    add(more) {
      left += more;
      changed.notify();
    },
    async take(cost) {
      left -= cost;
      while (left <= 0 && !signal.aborted) await changed.wait();
    },
  };
}
