/** What the scripts tell on the channel, in the order in which it happened. */
export interface Listener {
  kept(position: number, topic: string): void;
  /** Not kept: behind the kept ones up to a position. */
  passing(behind: number, topic: string, about: string, payload: Buffer): void;
  /** A reader's beginning, when `last` was the last position. */
  begun(reader: string, last: number): void;
  /** Something of a group is to be delivered again, now or later. */
  due(group: string): void;
  /** Settled by one whose time was over: whoever has it now need not any more. */
  settled(group: string, position: string): void;
  removed(group: string, born: string): void;
}

/** JSON, and for what is passing a line end and the payload behind it. What is not the bus's is left alone. */
export function hear(notice: Buffer, listener: Listener): void {
  const end = notice.indexOf("\n");
  const [kind, first, second, third] = wordsOf(end < 0 ? notice : notice.subarray(0, end));
  if (first === undefined) return;
  if (kind === "due") listener.due(first);
  if (second === undefined) return;
  if (kind === "kept") listener.kept(Number(first), second);
  else if (kind === "begun") listener.begun(first, Number(second));
  else if (kind === "settled") listener.settled(first, second);
  else if (kind === "removed") listener.removed(first, second);
  else if (kind === "passing" && third !== undefined) {
    listener.passing(Number(first), second, third, notice.subarray(end + 1));
  }
}

function wordsOf(head: Buffer): (string | undefined)[] {
  try {
    const words: unknown = JSON.parse(String(head));
    return Array.isArray(words) && words.every((it) => typeof it === "string") ? words : [];
  } catch {
    return [];
  }
}
