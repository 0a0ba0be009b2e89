import type { ConsumeOptions, SubscribeOptions } from "../../../core/index.js";

/** The calls of a bus that return an iterator. Each becomes a stream of notifications from the broker. */
export type StreamKind = "subscribe" | "consume";

/** The notification that opens a stream. */
export interface OpenStream
  extends Pick<SubscribeOptions, "filter" | "after">,
    Partial<Pick<ConsumeOptions, "group" | "ackWaitMs" | "maxInFlight">> {
  open: StreamKind;
  stream: number;
  /** What the broker may send before it is granted more. */
  credit: number;
}

/** Returns how much credit one item uses: its bytes, or one of the deliveries that were asked for. */
export function costOf(kind: StreamKind, payload: Uint8Array): number {
  return kind === "consume" ? 1 : payload.byteLength + ITEM_BYTES;
}

/** Roughly the size of a message's topic and header. */
const ITEM_BYTES = 256;

/**
 * The credit of a new stream. Subscribers are sent up to 256 KiB ahead, and one message beyond that. Members of a
 * group get deliveries one by one, since the time to acknowledge starts when a delivery is sent.
 */
export const FIRST_CREDIT: Record<StreamKind, number> = { subscribe: 256 * 2 ** 10, consume: 1 };
