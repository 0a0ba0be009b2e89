import type { ConsumeOptions, SubscribeOptions } from "../../../core/index.js";

/** What the broker may be asked to send until it is told otherwise. */
export type StreamKind = "subscribe" | "consume";

/** The fields of the note that opens a stream. */
export interface OpenStream
  extends Pick<SubscribeOptions, "filter" | "after">,
    Partial<Pick<ConsumeOptions, "group" | "ackWaitMs" | "maxInFlight">> {
  open: StreamKind;
  stream: number;
  credit: number;
}

/** What one item takes of the credit of its stream. A member of a group is sent what it asks for, one by one. */
export function costOf(kind: StreamKind, payload: Uint8Array): number {
  return kind === "consume" ? 1 : payload.byteLength + ITEM_BYTES;
}

/** About what topic and header of a message take. */
const ITEM_BYTES = 256;

/** What a stream begins with: a reader is sent ahead so many bytes, and perhaps one message more. */
export const FIRST_CREDIT: Record<StreamKind, number> = { subscribe: 256 * 2 ** 10, consume: 1 };
