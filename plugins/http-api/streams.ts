import type { Readable } from "node:stream";
import { type Clock, OpenStarryError, type StreamItem } from "../../core/index.js";
import type { Caller } from "./bearer.js";
import { eventStream } from "./event-stream.js";

export interface StreamsOptions {
  clock: Clock;
  maxPerToken: number;
  isValid: (token: string) => boolean;
}

/** The open streams. */
export interface Streams {
  /** Rejects with `too_many_streams`. Callers without a token are counted by `peer`. */
  open(source: AsyncIterable<StreamItem>, caller: Caller, peer: string): Promise<Readable>;
  endAll(): void;
}

/** The streams of one token. */
interface Group {
  token?: string | undefined;
  ends: Set<AbortController>;
}

/** How often the tokens of open streams are looked at again. */
const RECHECK_MS = 1_000;

/** Bounds the streams of each token, and ends those whose token is no longer valid. */
export function createStreams({ clock, maxPerToken, isValid }: StreamsOptions): Streams {
  const open = new Map<string, Group>();
  let cancelCheck: (() => void) | undefined;

  const check = () => {
    for (const { token, ends } of open.values()) {
      if (token !== undefined && !isValid(token)) for (const end of ends) end.abort();
    }
    cancelCheck = open.size > 0 ? clock.after(RECHECK_MS, check) : undefined;
  };
  return {
    async open(source, caller, peer) {
      const key = caller.token ?? `peer ${peer}`;
      const group: Group = open.get(key) ?? { token: caller.token, ends: new Set() };
      if (group.ends.size >= maxPerToken) {
        await source[Symbol.asyncIterator]().return?.();
        throw new OpenStarryError("too_many_streams", {
          detail: `${caller.principal.id} has ${group.ends.size} streams open, and may have no more`,
          hint: "close one, or follow several things in one stream",
        });
      }
      const end = new AbortController();
      group.ends.add(end);
      open.set(key, group);
      const stream = eventStream(source, { clock, signal: end.signal });
      stream.once("close", () => {
        group.ends.delete(end);
        if (group.ends.size === 0) open.delete(key);
      });
      cancelCheck ??= clock.after(RECHECK_MS, check);
      return stream;
    },
    endAll() {
      cancelCheck?.();
      for (const { ends } of open.values()) for (const end of ends) end.abort();
    },
  };
}
