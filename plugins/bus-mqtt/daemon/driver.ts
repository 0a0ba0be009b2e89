import {
  type BusDelivery,
  type BusMessage,
  type Clock,
  type ConsumeOptions,
  type MessageBus,
  OpenStarryError,
  type SubscribeOptions,
} from "../../../core/index.js";
import { assertPosition } from "../../kit/bus/bus-engine.js";
import type { Ticket } from "../../kit/bus/group.js";
import type { Frame } from "../ipc/frames.js";
import { createLink, type Link } from "../ipc/link.js";
import type { Peer } from "../ipc/peer.js";
import type { OpenStream } from "../ipc/stream-credit.js";
import { createDriverStreams } from "./driver-streams.js";

/** What the broker says of itself. */
export interface BrokerStatus {
  /** Why messages cannot be kept now. */
  problem?: string;
  /** Where MQTT clients connect; absent while it does not listen. */
  port?: number;
}

export interface DriverOptions {
  /** The broker's socket. */
  path: () => string;
  clock: Pick<Clock, "after">;
  /** Why the broker does not run, in words. */
  whyNot: () => string | undefined;
  /** What the broker asks. */
  onRequest: (frame: Frame) => Promise<object>;
  /** The broker answers, or has something to say of itself; absent: it is not there any more. */
  onStatus: (status: BrokerStatus | undefined, peer: Peer | undefined) => void;
}

export interface Driver {
  readonly bus: MessageBus;
  readonly link: Link;
}

/** The bus of a broker in another process. */
export function createDriver(options: DriverOptions): Driver {
  const { path, clock, whyNot, onRequest, onStatus } = options;
  const streams = createDriverStreams();
  let port: number | undefined;

  const tell = (status: Frame["header"], peer: Peer | undefined) => {
    const { problem, port: now } = status as BrokerStatus;
    port = now ?? port;
    onStatus(
      { ...(problem === undefined ? {} : { problem }), ...(now === undefined ? {} : { port: now }) },
      peer,
    );
  };
  const link = createLink({
    path,
    clock,
    onRequest,
    onNote(frame) {
      if (frame.header["do"] === "status") tell(frame.header, link.peer());
      else streams.onNote(frame);
    },
    onUp: (peer, status) => tell(status, peer),
    onDown() {
      streams.endAll(unavailable("the connection to the message broker is lost"));
      onStatus(undefined, undefined);
    },
  });

  const health = () => (link.peer() ? undefined : (whyNot() ?? "the message broker does not answer yet"));
  const broker = (): Peer => {
    const peer = link.peer();
    if (peer) return peer;
    throw unavailable(`the message bus cannot be used now: ${health()}`);
  };
  const ask = async (header: object, payload?: Uint8Array) => broker().request(header, payload);

  function deliveryOf(message: BusMessage, ticket: Ticket): BusDelivery {
    return {
      message,
      attempt: ticket.attempt,
      // Of whatever connection there is then: the broker knows it by its ticket.
      ack: async () => void (await ask({ do: "ack", ticket })),
      nack: async (delayMs = 0) => void (await ask({ do: "nack", ticket, delayMs })),
    };
  }

  async function* read(asked: Omit<OpenStream, "stream" | "credit">, signal: AbortSignal) {
    if (!signal.aborted) yield* streams.read(broker(), asked, signal);
  }

  async function* messages({ signal, ...asked }: SubscribeOptions): AsyncGenerator<BusMessage> {
    for await (const { message } of read({ ...asked, open: "subscribe" }, signal)) yield message;
  }

  async function* deliveries({ signal, ...asked }: ConsumeOptions): AsyncGenerator<BusDelivery> {
    for await (const { message, ticket } of read({ ...asked, open: "consume" }, signal))
      yield deliveryOf(message, ticket as Ticket);
  }

  const bus: MessageBus = {
    name: "mqtt",
    capabilities: { durable: true },
    async publish({ payload, ...message }, { keep = true } = {}) {
      const { position } = await ask({ do: "publish", message, keep }, payload);
      return position === undefined ? {} : { position: String(position) };
    },
    subscribe(it) {
      assertPosition(it.after);
      return messages(it);
    },
    consume(it) {
      assertPosition(it.after);
      return deliveries(it);
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
  const hint = "ask again in a moment, with the last position as `after`";
  return new OpenStarryError("bus_unavailable", { detail, hint, data: { retry_after_s: 1 } });
}
