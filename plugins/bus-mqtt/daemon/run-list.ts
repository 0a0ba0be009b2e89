import type { Frame } from "../ipc/frames.js";
import type { Peer } from "../ipc/peer.js";

/** Tells the broker which runs there are: as a payload, since a header has no room for thousands of them. */
export function tellRuns(peer: Peer, runIds: readonly string[]): void {
  peer.note({ do: "runs" }, Buffer.from(JSON.stringify(runIds)));
}

/** What `tellRuns` told; `undefined` when the frame is another one. */
export function toldRuns({ header, payload }: Frame): Set<string> | undefined {
  if (header["do"] !== "runs") return undefined;
  return new Set(JSON.parse(Buffer.from(payload).toString()) as string[]);
}
