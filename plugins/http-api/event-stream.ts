import { Readable } from "node:stream";
import { type Clock, type StreamItem, toOpenStarryError } from "../../core/index.js";
import { toProblem } from "./problems.js";

export interface EventStreamOptions {
  clock: Clock;
  /** Ends the stream. */
  signal: AbortSignal;
}

const HEARTBEAT_MS = 15_000;
/** How much waits for a slow client before the source is asked for no more. */
const BUFFER_BYTES = 64 * 1_024;

/** One item as a server-sent event (HTML standard, section 9.2). */
function encodeItem(item: StreamItem): string {
  // A client takes note of an id that comes without data, and tells nobody.
  if (item.data === undefined && item.id !== undefined) return `id: ${oneLine(item.id)}\n\n`;
  const data = typeof item.data === "string" ? item.data : (JSON.stringify(item.data) ?? "");
  const lines = [
    ...(item.id === undefined ? [] : [`id: ${oneLine(item.id)}`]),
    ...(item.event === undefined ? [] : [`event: ${oneLine(item.event)}`]),
    ...data.split(/\r\n|\r|\n/).map((line) => `data: ${line}`),
  ];
  return `${lines.join("\n")}\n\n`;
}

function oneLine(text: string): string {
  return text.replaceAll(/[\r\n\0]/g, " ");
}

/**
 * Server-sent events out of a source that is asked for the next item only when there is room. A comment
 * every 15 s keeps the connection alive; a client that has read nothing from one of them to the next
 * although something waits for it is dropped. A source that fails ends the stream with an `error` event.
 */
export function eventStream(source: AsyncIterable<StreamItem>, options: EventStreamOptions): Readable {
  const { clock, signal } = options;
  const iterator = source[Symbol.asyncIterator]();
  let asked = false;
  let finished = false;
  let readSinceBeat = true;

  const finish = (last?: string) => {
    if (finished) return;
    finished = true;
    if (last !== undefined) stream.push(last);
    stream.push(null);
  };
  const onItem = (result: IteratorResult<StreamItem>) => {
    asked = false;
    if (finished) return;
    if (result.done) finish();
    else stream.push(encodeItem(result.value));
  };
  const stream = new Readable({
    highWaterMark: BUFFER_BYTES,
    read() {
      readSinceBeat = true;
      if (asked || finished) return;
      asked = true;
      iterator
        .next()
        .then(onItem)
        .catch((error: unknown) =>
          finish(encodeItem({ event: "error", data: toProblem(toOpenStarryError(error)) })),
        );
    },
    destroy(error, done) {
      finished = true;
      cancelBeat();
      signal.removeEventListener("abort", onAbort);
      // Not waited for: a source may be in the middle of waiting for its next item.
      Promise.resolve(iterator.return?.()).catch(() => {});
      done(error);
    },
  });
  const onAbort = () => finish();
  const beat = () => {
    if (!readSinceBeat && stream.readableLength > 0) {
      stream.destroy();
      return;
    }
    readSinceBeat = false;
    if (stream.readableLength === 0 && !finished) stream.push(": still here\n\n");
    cancelBeat = clock.after(HEARTBEAT_MS, beat);
  };
  let cancelBeat = clock.after(HEARTBEAT_MS, beat);
  if (signal.aborted) finish();
  else signal.addEventListener("abort", onAbort, { once: true });
  // Sends the headers at once, however long the first item takes.
  if (!finished) stream.push(": open\n\n");
  return stream;
}
