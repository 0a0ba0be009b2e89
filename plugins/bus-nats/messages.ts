import { headers, type MsgHdrs } from "@nats-io/transport-node";
import { type BusMessage, rfc3339 } from "../../core/index.js";
import { decode, encode, readSubject, subjectOf } from "./subjects.js";

/** What is said of a message beside its topic and payload. */
export interface Stamp {
  atMs: number;
  from?: string | undefined;
  reply_to?: string | undefined;
  /** Of one that is not kept: the last sequence of the stream before it. */
  behind?: number;
}

/** A message on its way out. */
export interface Outgoing {
  topic: string;
  payload: Uint8Array;
  stamp: Stamp;
}

/** A message as NATS hands it over; `subject` is the part behind the prefix. */
export interface Incoming {
  subject: string;
  headers?: MsgHdrs | undefined;
  data: Uint8Array;
}

const FIELDS = { at: "At", from: "From", replyTo: "Reply-To", behind: "Behind" } as const;
/** More than the headers of a message ever take. */
const MAX_STAMP_BYTES = 2_048;

/**
 * Where and with which headers it is published. Servers count headers as part of a message, whose size most of
 * them limit to 1 MiB: a message that has no room for them carries its stamp in the subject.
 */
export function addressOf({ topic, payload, stamp }: Outgoing, maxBytes: number) {
  const fields = fieldsOf(stamp);
  if (payload.byteLength + MAX_STAMP_BYTES > maxBytes) {
    return { subject: subjectOf(topic, Buffer.from(JSON.stringify(fields)).toString("base64url")) };
  }
  const made = headers();
  for (const [name, value] of Object.entries(fields)) made.set(name, value);
  return { subject: subjectOf(topic), headers: made };
}

function fieldsOf({ atMs, from, reply_to, behind }: Stamp): Record<string, string> {
  return {
    [FIELDS.at]: String(atMs),
    ...(from === undefined ? {} : { [FIELDS.from]: encode(from) }),
    ...(reply_to === undefined ? {} : { [FIELDS.replyTo]: encode(reply_to) }),
    ...(behind === undefined ? {} : { [FIELDS.behind]: String(behind) }),
  };
}

/** The message, and which kept ones it comes behind when it is not kept itself. */
export function messageOf(incoming: Incoming, position?: string): { message: BusMessage; behind: number } {
  const { topic, stamp } = readSubject(incoming.subject);
  const read = stamp === undefined ? (name: string) => incoming.headers?.get(name) : fieldReader(stamp);
  const from = read(FIELDS.from);
  const reply_to = read(FIELDS.replyTo);
  const message: BusMessage = {
    ...(position === undefined ? {} : { position }),
    topic,
    // A copy: a view would keep all of what came in over the network with it.
    payload: Uint8Array.from(incoming.data),
    at: rfc3339(timeOf(read(FIELDS.at))),
    ...(from ? { from: decode(from) } : {}),
    ...(reply_to ? { reply_to: decode(reply_to) } : {}),
  };
  return { message, behind: Number(read(FIELDS.behind)) || 0 };
}

/** Times beyond those of a `Date` are none of ours. */
function timeOf(text = ""): number {
  return /^\d{1,15}$/.test(text) ? Number(text) : 0;
}

function fieldReader(stamp: string): (name: string) => string | undefined {
  try {
    const fields = JSON.parse(Buffer.from(stamp, "base64url").toString()) as Record<string, unknown>;
    return (name) => (typeof fields[name] === "string" ? fields[name] : undefined);
  } catch {
    // Not one of ours.
    return () => undefined;
  }
}

export function bytesOf({ topic, payload }: BusMessage): number {
  return topic.length + payload.byteLength;
}
