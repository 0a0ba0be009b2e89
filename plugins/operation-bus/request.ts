import { randomUUID } from "node:crypto";
import { type BusMessage, type Clock, type MessageBus, OpenStarryError } from "../../core/index.js";
import { REPLY_TOPICS } from "../kit/topics.js";

export interface RequestOptions {
  message: { topic: string; payload: Uint8Array; from: string };
  keep: boolean;
  timeoutMs: number;
  signal: AbortSignal;
}

/**
 * Publishes, and waits for the first message on a reply topic of its own. Rejects with `timeout`; the
 * message is published then all the same.
 */
export async function request(
  bus: MessageBus,
  clock: Pick<Clock, "after">,
  { message, keep, timeoutMs, signal }: RequestOptions,
): Promise<{ position?: string; reply: BusMessage }> {
  const reply_to = `${REPLY_TOPICS}/${randomUUID()}`;
  const over = new AbortController();
  const replies = bus.subscribe({ filter: reply_to, signal: AbortSignal.any([signal, over.signal]) });
  const first = replies[Symbol.asyncIterator]().next();
  first.catch(() => {}); // told below, unless publishing fails before
  const cancel = clock.after(timeoutMs, () => over.abort());
  try {
    const published = await bus.publish({ ...message, reply_to }, { keep });
    const { value, done } = await first;
    if (!done) return { ...published, reply: value };
    signal.throwIfAborted();
    throw new OpenStarryError("timeout", {
      detail: `nobody answered on ${message.topic} within ${timeoutMs} ms`,
      hint: "the message is published, and may be answered too late; wait longer, or look whether somebody reads it",
      data: published,
    });
  } finally {
    cancel();
    over.abort();
  }
}
