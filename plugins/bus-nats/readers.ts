import type { BusMessage, SubscribeOptions } from "../../core/index.js";
import { topicMatches } from "../kit/topics.js";
import { type Bell, createBell } from "./bell.js";
import { bytesOf } from "./messages.js";
import type { Session } from "./session.js";

/** Of messages that are not kept, so many wait for one slow reader; then the oldest are lost to it. */
const MAX_PASSING = 1_000;
const MAX_PASSING_BYTES = 4 * 2 ** 20;

export interface Reader {
  filter: string;
  bell: Bell;
  /** Messages that are not kept, each behind the kept ones up to a sequence. */
  passing: { message: BusMessage; behind: number }[];
  passingBytes: number;
}

/** Those who subscribe. What is kept they read from the stream; what is not waits for each of them here. */
export function createReaders() {
  const readers = new Set<Reader>();

  return {
    join(filter: string): Reader {
      const reader: Reader = { filter, bell: createBell(), passing: [], passingBytes: 0 };
      readers.add(reader);
      return reader;
    },
    leave: (reader: Reader) => readers.delete(reader),
    ringAll(): void {
      for (const { bell } of readers) bell.ring();
    },
    pass(message: BusMessage, behind: number): void {
      for (const reader of readers) {
        if (!topicMatches(reader.filter, message.topic)) continue;
        reader.passing.push({ message, behind });
        reader.passingBytes += bytesOf(message);
        while (reader.passing.length > MAX_PASSING || reader.passingBytes > MAX_PASSING_BYTES) shift(reader);
        reader.bell.ring();
      }
    },
  };
}

/** All that a reader gets from a sequence on, in turn. */
export async function* messagesFor(
  reader: Reader,
  session: Session,
  from: number,
  signal: SubscribeOptions["signal"],
): AsyncGenerator<BusMessage> {
  const { filter, bell, passing } = reader;
  const { tail } = session;
  let cursor = from;
  while (!signal.aborted) {
    session.mustLive();
    const behind = passing[0]?.behind ?? Number.POSITIVE_INFINITY;
    const upTo = Math.min(behind, tail.last());
    if (cursor < upTo) {
      const found = await session.find(filter, cursor, upTo);
      cursor = found?.sequence ?? upTo;
      if (found && !signal.aborted) yield found.message;
    } else if (behind <= cursor) {
      yield shift(reader) as BusMessage;
    } else {
      await bell.rung();
    }
  }
}

function shift(reader: Reader): BusMessage | undefined {
  const message = reader.passing.shift()?.message;
  if (message) reader.passingBytes -= bytesOf(message);
  return message;
}
