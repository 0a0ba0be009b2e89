import { connect } from "node:net";
import type { Clock } from "../../../core/index.js";
import type { Frame } from "./frames.js";
import { createPeer, type Peer } from "./peer.js";

export interface LinkOptions {
  path: () => string;
  clock: Pick<Clock, "after">;
  onRequest: (frame: Frame) => Promise<object>;
  onNote: (frame: Frame) => void;
  /** The broker answers; this is what it says of itself. */
  onUp: (peer: Peer, status: Frame["header"]) => void;
  onDown: () => void;
}

/** The daemon's connection to the broker. */
export interface Link {
  /** Connects, and again whenever it is lost. Resolves when that was tried once. Rejects when `path` throws. */
  open(): Promise<void>;
  /** `undefined` while nobody answers. */
  peer(): Peer | undefined;
  isOpen(): boolean;
  close(): void;
}

const FIRST_RETRY_MS = 20;
const LONGEST_RETRY_MS = 500;
/** A broker that says nothing for so long does not answer. */
const SILENCE_MS = 15_000;
const PING_MS = 5_000;

export function createLink({ path, clock, onRequest, onNote, onUp, onDown }: LinkOptions): Link {
  let up: Peer | undefined;
  let current: Peer | undefined;
  let isOpen = false;
  let place = "";
  let retryMs = FIRST_RETRY_MS;
  let cancelRetry = () => {};

  /** Ends a connection on which nothing is answered. */
  async function ask(peer: Peer, header: object): Promise<Frame["header"] | undefined> {
    const cancel = clock.after(SILENCE_MS, peer.end);
    // That it fails is told by its end.
    const answer = await peer.request(header).catch(() => undefined);
    cancel();
    return answer;
  }

  async function watch(peer: Peer): Promise<void> {
    if (up === peer && (await ask(peer, { do: "ping" }))) clock.after(PING_MS, () => void watch(peer));
  }

  async function attempt(): Promise<void> {
    const peer = createPeer({ socket: connect(place), onRequest, onNote, onEnd: () => onEnd(peer) });
    current = peer;
    const status = await ask(peer, { do: "hello" });
    if (!status || current !== peer) return;
    up = peer;
    retryMs = FIRST_RETRY_MS;
    onUp(peer, status);
    void watch(peer);
  }

  function onEnd(peer: Peer): void {
    const wasUp = up === peer;
    if (wasUp) up = undefined;
    if (wasUp && isOpen) onDown();
    if (!isOpen || current !== peer) return;
    cancelRetry = clock.after(retryMs, () => void attempt());
    retryMs = Math.min(2 * retryMs, LONGEST_RETRY_MS);
  }

  return {
    async open() {
      if (isOpen) return;
      place = path();
      isOpen = true;
      await attempt();
    },
    peer: () => up,
    isOpen: () => isOpen,
    close() {
      isOpen = false;
      cancelRetry();
      up = undefined;
      current?.end();
      current = undefined;
    },
  };
}
