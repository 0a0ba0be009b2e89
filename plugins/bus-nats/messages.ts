import { headers, type MsgHdrs } from "@nats-io/transport-node";
import { type BusMessage, rfc3339 } from "../../core/index.js";
import { decode, encode, topicOf } from "./subjects.js";

const AT = "At";
const FROM = "From";
const REPLY_TO = "Reply-To";
const BEHIND = "Behind";

export type Stamp = Pick<BusMessage, "from" | "reply_to"> & {
  atMs: number;
  /** Of one that is not kept: the last sequence of the stream before it. */
  behind?: number;
};

/** What is said of a message beside its topic and payload. */
export function headersOf({ from, reply_to, atMs, behind }: Stamp): MsgHdrs {
  const made = headers();
  made.set(AT, String(atMs));
  if (from !== undefined) made.set(FROM, encode(from));
  if (reply_to !== undefined) made.set(REPLY_TO, encode(reply_to));
  if (behind !== undefined) made.set(BEHIND, String(behind));
  return made;
}

/** A message as NATS hands it over; `subject` is the part behind the prefix. */
export interface NatsMessage {
  subject: string;
  headers?: MsgHdrs | undefined;
  data: Uint8Array;
}

export function messageOf({ subject, headers: told, data }: NatsMessage, position?: string): BusMessage {
  const from = told?.get(FROM);
  const reply_to = told?.get(REPLY_TO);
  return {
    ...(position === undefined ? {} : { position }),
    topic: topicOf(subject),
    // A copy: a view would keep all of what came in over the network with it.
    payload: Uint8Array.from(data),
    at: rfc3339(Number(told?.get(AT)) || 0),
    ...(from ? { from: decode(from) } : {}),
    ...(reply_to ? { reply_to: decode(reply_to) } : {}),
  };
}

export function behindOf({ headers: told }: NatsMessage): number {
  return Number(told?.get(BEHIND)) || 0;
}

export function bytesOf({ topic, payload }: BusMessage): number {
  return topic.length + payload.byteLength;
}
