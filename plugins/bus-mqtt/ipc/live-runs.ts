import type { Frame } from "./frames.js";
import type { Peer } from "./peer.js";

/** Sends the broker the ids of all live runs. As payload, since thousands of ids exceed the limit of a header. */
export function sendLiveRuns(peer: Peer, runIds: readonly string[]): void {
  peer.notify({ do: "runs" }, Buffer.from(JSON.stringify(runIds)));
}

/** Reads what `sendLiveRuns` sent; returns `undefined` for any other frame. */
export function readLiveRuns({ header, payload }: Frame): Set<string> | undefined {
  if (header["do"] !== "runs") return undefined;
  return new Set(JSON.parse(Buffer.from(payload).toString()) as string[]);
}
