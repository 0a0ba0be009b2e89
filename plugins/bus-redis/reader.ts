import type { BusMessage } from "../../core/index.js";
import type { Calls } from "./calls.js";
import { fitting, patternOf } from "./filters.js";

export interface ReaderOptions {
  filter: string;
  /** Behind this position; absent: what comes. */
  after?: number | undefined;
  read: Calls["read"];
}

export type Reader = ReturnType<typeof createReader>;

/** Of messages that are not kept, so many wait for one slow reader; then the oldest are lost to it. */
const MAX_PASSING = 1_000;
const MAX_PASSING_BYTES = 4 * 2 ** 20;

/**
 * One reader's place on the bus. It is told of kept messages, and fetches them some at a time when it is asked
 * for them; those that are not kept it is given, each in its turn behind the kept ones up to a position.
 */
export function createReader({ filter, after, read }: ReaderOptions) {
  const pattern = patternOf(filter);
  const wants = fitting(filter);
  const passing: { message: BusMessage; behind: number }[] = [];
  let passingBytes = 0;
  let fetched: BusMessage[] = [];
  let hasBegun = false;
  /** It has seen all that it is to see up to here. */
  let cursor = 0;
  /** Where the newest kept message for it stands, as far as it has been told. */
  let newest = 0;
  let failure: Error | undefined;
  let isOver = false;
  let ring = () => {};

  function shift(): BusMessage | undefined {
    const message = passing.shift()?.message;
    passingBytes -= message?.payload.byteLength ?? 0;
    return message;
  }

  return {
    wants,
    /** The server has reached its beginning, where `last` was the last position. */
    begin(last: number): void {
      hasBegun = true;
      newest = last;
      // A position from a clock that was ahead of this one's: everything is news.
      cursor = after === undefined ? last : after > last ? 0 : after;
      ring();
    },
    kept(topic: string, position: number): void {
      if (!hasBegun) return;
      if (wants(topic)) {
        newest = position;
        ring();
      } else if (cursor >= newest) cursor = position;
    },
    /** A message for it that is not kept. */
    pass(message: BusMessage, behind: number): void {
      if (!hasBegun) return;
      passing.push({ message, behind });
      passingBytes += message.payload.byteLength;
      while (passing.length > MAX_PASSING || passingBytes > MAX_PASSING_BYTES) shift();
      ring();
    },
    fail(error: Error): void {
      failure ??= error;
      ring();
    },
    end(): void {
      isOver = true;
      ring();
    },
    /** `undefined`: it was ended. */
    async next(): Promise<BusMessage | undefined> {
      for (;;) {
        if (isOver) return undefined;
        if (failure) throw failure;
        const upTo = Math.min(newest, passing[0]?.behind ?? newest);
        const message = fetched.shift() ?? (cursor < upTo ? undefined : shift());
        if (message) return message;
        if (cursor < upTo) {
          ({ cursor, messages: fetched } = await read(cursor, upTo, pattern));
        } else {
          await new Promise<void>((resolve) => {
            ring = resolve;
          });
        }
      }
    },
  };
}
