import { headers, type MsgHdrs } from "@nats-io/transport-node";
import { type BusMessage, rfc3339 } from "../../core/index.js";
import { decodeToken, encodeToken, parseSubject, subjectOf } from "./subjects.js";

/** The parts of a message other than topic and payload. */
export interface Metadata {
  atMs: number;
  from?: string | undefined;
  reply_to?: string | undefined;
  /** For a message with `keep: false`: its place is behind this sequence of the stream. */
  afterSequence?: number;
}

export interface Outgoing {
  topic: string;
  payload: Uint8Array;
  metadata: Metadata;
}

/** A message as NATS hands it over, with its subject without the prefix. */
export interface Incoming {
  subject: string;
  headers?: MsgHdrs | undefined;
  data: Uint8Array;
}

const FIELDS = { at: "At", from: "From", replyTo: "Reply-To", afterSequence: "Behind" } as const;
/** More than the headers of a message ever take. */
const MAX_METADATA_BYTES = 2_048;

/**
 * Returns the subject and headers of a message. Servers count headers as part of the message, whose size most limit to
 * 1 MiB: a message that leaves no room for them has its metadata in the subject.
 */
export function encodeMessage({ topic, payload, metadata }: Outgoing, maxBytes: number) {
  const fields = fieldsOf(metadata);
  if (payload.byteLength + MAX_METADATA_BYTES > maxBytes) {
    return { subject: subjectOf(topic, Buffer.from(JSON.stringify(fields)).toString("base64url")) };
  }
  const made = headers();
  for (const [name, value] of Object.entries(fields)) made.set(name, value);
  return { subject: subjectOf(topic), headers: made };
}

/** Returns only the fields that have a value: each becomes a header. */
function fieldsOf({ atMs, from, reply_to, afterSequence }: Metadata): Record<string, string> {
  return {
    [FIELDS.at]: String(atMs),
    ...(from === undefined ? {} : { [FIELDS.from]: encodeToken(from) }),
    ...(reply_to === undefined ? {} : { [FIELDS.replyTo]: encodeToken(reply_to) }),
    ...(afterSequence === undefined ? {} : { [FIELDS.afterSequence]: String(afterSequence) }),
  };
}

/** Decodes a message. `afterSequence` is meaningful for one with `keep: false`. */
export function decodeMessage(
  incoming: Incoming,
  position?: string,
): { message: BusMessage; afterSequence: number } {
  const { topic, metadata } = parseSubject(incoming.subject);
  const field =
    metadata === undefined ? (name: string) => incoming.headers?.get(name) : fieldReader(metadata);
  const from = field(FIELDS.from);
  const replyTo = field(FIELDS.replyTo);
  const message: BusMessage = {
    position,
    topic,
    // A copy, since a view would keep the whole received chunk in memory.
    payload: Uint8Array.from(incoming.data),
    at: rfc3339(timeOf(field(FIELDS.at))),
    from: from ? decodeToken(from) : undefined,
    reply_to: replyTo ? decodeToken(replyTo) : undefined,
  };
  return { message, afterSequence: Number(field(FIELDS.afterSequence)) || 0 };
}

/** Returns 0 for a text that is not a time within the range of `Date`: another program has published it. */
function timeOf(text = ""): number {
  return /^\d{1,15}$/.test(text) ? Number(text) : 0;
}

function fieldReader(metadata: string): (name: string) => string | undefined {
  try {
    const fields = JSON.parse(Buffer.from(metadata, "base64url").toString()) as Record<string, unknown>;
    return (name) => (typeof fields[name] === "string" ? fields[name] : undefined);
  } catch {
    // Published by another program.
    return () => undefined;
  }
}
