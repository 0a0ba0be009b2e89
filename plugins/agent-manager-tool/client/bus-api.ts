import { followEvents } from "./event-stream.js";
import type { Transport } from "./transport.js";
import type * as Wire from "./wire.js";

const REPLY_WAIT_MS = 30_000;
/** What an answer may take longer than the wait that was asked for. */
const SLACK_MS = 30_000;

/** Everything under `/bus`. */
export function busApi(transport: Transport) {
  const post = <T>(topic: string, body: object, timeoutMs: number, control: Wire.CallControl) =>
    transport.json<T>({ method: "POST", path: pathOf(topic), body, timeoutMs, ...signalOf(control) });
  const settle = async (body: object): Promise<void> => {
    // Twice is as good as once.
    await transport.json({ method: "POST", path: "/bus-ack", body, repeatable: true });
  };

  return {
    /** Resolves when the message is kept. `payload`: JSON, at most 1 MiB. Not repeated by itself. */
    publish: (topic: string, payload: unknown, options: Wire.PublishOptions = {}) => {
      const { keep, reply_to } = options;
      return post<{ topic: string; position?: string }>(
        topic,
        { payload, keep, reply_to },
        SLACK_MS,
        options,
      );
    },
    /** Publishes, and resolves with the reply. Rejects with `timeout`; the message is published then all the same. */
    async request(
      topic: string,
      payload: unknown,
      options: Wire.RequestOptions = {},
    ): Promise<Wire.BusMessage> {
      const waitMs = options.timeoutMs ?? REPLY_WAIT_MS;
      const body = { payload, keep: options.keep, wait_for_reply: true, timeout: `${waitMs}ms` };
      const { reply } = await post<{ reply: Wire.BusMessage }>(topic, body, waitMs + SLACK_MS, options);
      return reply;
    },
    /**
     * All messages of a filter that are kept after `after`, then what comes, until the signal aborts. A lost
     * connection is taken up again after the last message; before the first one, and without `after`, what
     * was published meanwhile is missed.
     */
    async *subscribe(
      filter: string,
      { after, ...options }: Wire.BusQuery = {},
    ): AsyncGenerator<Wire.BusMessage> {
      const from = after === undefined ? {} : { lastEventId: after };
      for await (const { data } of followEvents(transport, { path: pathOf(filter), ...options, ...from })) {
        yield data as Wire.BusMessage;
      }
    },
    /** What comes to this member of a group, until the signal aborts. Each is delivered again until it is settled. */
    async *consume(
      filter: string,
      { after, group, ackWaitMs, maxInFlight, ...options }: Wire.ConsumeQuery,
    ): AsyncGenerator<Wire.BusDelivery> {
      const ack_wait = ackWaitMs === undefined ? undefined : `${ackWaitMs}ms`;
      const query = { group, after, ack_wait, max_in_flight: maxInFlight };
      for await (const { data } of followEvents(transport, { path: pathOf(filter), query, ...options })) {
        const { ack, attempt, ...message } = data as Wire.BusMessage & { ack: string; attempt: number };
        yield {
          message,
          attempt,
          ack: () => settle({ ack }),
          nack: (delayMs = 0) => settle({ nack: ack, delay: `${delayMs}ms` }),
        };
      }
    },
  };
}

/** Levels stay levels; a final `#` would be a fragment otherwise. */
function pathOf(topic: string): string {
  return `/bus/${topic.split("/").map(encodeURIComponent).join("/")}`;
}

function signalOf({ signal }: Wire.CallControl): Wire.CallControl {
  return signal ? { signal } : {};
}
