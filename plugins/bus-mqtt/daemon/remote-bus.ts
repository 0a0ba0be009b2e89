import {
  type BusDelivery,
  type BusMessage,
  type Clock,
  type ConsumeOptions,
  type MessageBus,
  OpenStarryError,
  type SubscribeOptions,
} from "../../../core/index.js";
import type { DeliveryTag } from "../../kit/bus/consumer-group.js";
import { assertPosition } from "../../kit/bus/position.js";
import type { BrokerStatus } from "../ipc/broker-status.js";
import type { Frame } from "../ipc/frames.js";
import type { Peer } from "../ipc/peer.js";
import type { OpenStream } from "../ipc/stream-credit.js";
import { type BrokerLink, createBrokerLink } from "./broker-link.js";
import { createStreamReaders } from "./stream-readers.js";

export interface RemoteBusOptions {
  /** Returns the path of the broker's socket. */
  path: () => string;
  clock: Pick<Clock, "after">;
  /** Says why the broker does not run; `undefined` when it does. */
  whyDown: () => string | undefined;
  /** Answers the broker's requests. */
  onRequest: (frame: Frame) => Promise<object>;
  /** Called with the broker's status when it connects or its status changes, and with nothing when it is lost. */
  onStatus: (status: BrokerStatus | undefined, peer: Peer | undefined) => void;
}

export interface RemoteBus {
  readonly bus: MessageBus;
  readonly link: BrokerLink;
}

/** Creates the message bus that forwards every call to the broker process. */
export function createRemoteBus(options: RemoteBusOptions): RemoteBus {
  const { path, clock, whyDown, onRequest, onStatus } = options;
  const streams = createStreamReaders();
  let port: number | undefined;

  const reportStatus = (header: Frame["header"], peer: Peer | undefined) => {
    const status = header as BrokerStatus;
    port = status.port ?? port;
    onStatus({ problem: status.problem, port: status.port }, peer);
  };
  const link = createBrokerLink({
    path,
    clock,
    onRequest,
    onNotification(frame) {
      if (frame.header["do"] === "status") reportStatus(frame.header, link.peer());
      else streams.onNotification(frame);
    },
    onUp: (peer, status) => reportStatus(status, peer),
    onDown() {
      streams.endAll(unavailable("lost the connection to the message broker"));
      onStatus(undefined, undefined);
    },
  });

  const health = () => (link.peer() ? undefined : (whyDown() ?? "the message broker does not answer yet"));
  const broker = (): Peer => {
    const peer = link.peer();
    if (peer) return peer;
    throw unavailable(`cannot use the message bus now: ${health()}`);
  };
  const ask = async (header: object, payload?: Uint8Array) => broker().request(header, payload);

  function deliveryOf(message: BusMessage, tag: DeliveryTag): BusDelivery {
    return {
      message,
      attempt: tag.attempt,
      // Over the connection of that time: the tag identifies the delivery on any of them.
      ack: async () => void (await ask({ do: "ack", ticket: tag })),
      nack: async (delayMs = 0) => void (await ask({ do: "nack", ticket: tag, delayMs })),
    };
  }

  async function* read(asked: Omit<OpenStream, "stream" | "credit">, signal: AbortSignal) {
    if (!signal.aborted) yield* streams.read(broker(), asked, signal);
  }

  async function* messages({ signal, ...asked }: SubscribeOptions): AsyncGenerator<BusMessage> {
    for await (const { message } of read({ ...asked, open: "subscribe" }, signal)) yield message;
  }

  async function* deliveries({ signal, ...asked }: ConsumeOptions): AsyncGenerator<BusDelivery> {
    for await (const { message, tag } of read({ ...asked, open: "consume" }, signal))
      yield deliveryOf(message, tag as DeliveryTag);
  }

  const bus: MessageBus = {
    name: "mqtt",
    capabilities: { durable: true },
    async publish({ payload, ...message }, { keep = true } = {}) {
      const { position } = await ask({ do: "publish", message, keep }, payload);
      return position === undefined ? {} : { position: String(position) };
    },
    subscribe(asked) {
      assertPosition(asked.after);
      return messages(asked);
    },
    consume(asked) {
      assertPosition(asked.after);
      return deliveries(asked);
    },
    removeGroup: async ({ filter, group }) => void (await ask({ do: "removeGroup", of: { filter, group } })),
    drop: async (filter) => void (await ask({ do: "drop", filter })),
    health,
    urlFor: () => (port === undefined ? undefined : `mqtt://127.0.0.1:${port}`),
  };
  return {
    bus,
    link: {
      ...link,
      close() {
        link.close();
        streams.endAll(unavailable("the message bus is stopped"));
      },
    },
  };
}

function unavailable(detail: string): OpenStarryError {
  const hint = "try again in a moment, with the last position as `after`";
  return new OpenStarryError("bus_unavailable", { detail, hint, data: { retry_after_s: 1 } });
}
