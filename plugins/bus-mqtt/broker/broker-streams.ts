import type { BusMessage } from "../../../core/index.js";
import type { BusEngine } from "../../kit/bus/bus-engine.js";
import type { Ticket } from "../../kit/bus/group.js";
import { encodeError, type Peer } from "../ipc/peer.js";
import { costOf, type OpenStream } from "../ipc/stream-credit.js";

/** What the daemon reads, as far as it takes it. */
export function createStreams(bus: BusEngine, peer: () => Peer) {
  const streams = new Map<number, { over: AbortController; more: (credit: number) => void }>();

  async function pump(asked: OpenStream, signal: AbortSignal, credit: Credit): Promise<void> {
    const { open: kind, stream } = asked;
    for await (const { message, ticket } of itemsOf(bus, asked, signal)) {
      const { payload, ...rest } = message;
      peer().note({ stream, message: rest, ticket }, payload);
      await credit.take(costOf(kind, payload));
    }
  }

  return {
    open(asked: OpenStream): void {
      const over = new AbortController();
      const credit = createCredit(asked.credit, over.signal);
      streams.set(asked.stream, { over, more: credit.add });
      const end = (error?: object) => {
        streams.delete(asked.stream);
        if (!over.signal.aborted) peer().note({ stream: asked.stream, over: true, error });
      };
      pump(asked, over.signal, credit).then(
        () => end(),
        (error: unknown) => end(encodeError(error)),
      );
    },
    more: (stream: number, credit: number) => streams.get(stream)?.more(credit),
    cancel(stream: number): void {
      streams.get(stream)?.over.abort();
      streams.delete(stream);
    },
    /** Nobody is there any more. */
    cancelAll(): void {
      for (const { over } of streams.values()) over.abort();
      streams.clear();
    },
  };
}

type Item = { message: BusMessage; ticket?: Ticket };

function itemsOf(bus: BusEngine, { open, ...asked }: OpenStream, signal: AbortSignal): AsyncIterable<Item> {
  const { filter, after } = asked;
  const options = { filter, signal, ...(after === undefined ? {} : { after }) };
  if (open === "subscribe") return messages(bus.subscribe(options));
  const { group, ackWaitMs, maxInFlight } = asked as Required<typeof asked>;
  return bus.consume({ ...options, group, ackWaitMs, maxInFlight });
}

async function* messages(source: AsyncIterable<BusMessage>): AsyncGenerator<Item> {
  for await (const message of source) yield { message };
}

interface Credit {
  add(more: number): void;
  /** Resolves when there is some left, or at the signal. */
  take(cost: number): Promise<void>;
}

function createCredit(first: number, signal: AbortSignal): Credit {
  let left = first;
  let wake = () => {};
  signal.addEventListener("abort", () => wake(), { once: true });
  return {
    add(more) {
      left += more;
      if (left > 0) wake();
    },
    async take(cost) {
      left -= cost;
      if (left > 0 || signal.aborted) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    },
  };
}
