import { connect } from "node:net";
import type { Clock } from "../../../core/index.js";
import type { Frame } from "../ipc/frames.js";
import { createPeer, type Peer } from "../ipc/peer.js";

export interface BrokerLinkOptions {
  /** Returns the path of the broker's socket. */
  path: () => string;
  clock: Pick<Clock, "after">;
  onRequest: (frame: Frame) => Promise<object>;
  onNotification: (frame: Frame) => void;
  /** Called when the broker has answered on a new connection, with its status. */
  onUp: (peer: Peer, status: Frame["header"]) => void;
  onDown: () => void;
}

/** The daemon's connection to the broker, which is made again whenever it is lost. */
export interface BrokerLink {
  /** Starts connecting. Resolves after the first attempt, successful or not. Rejects when `path` throws. */
  open(): Promise<void>;
  /** Returns the broker's end; `undefined` while it does not answer. */
  peer(): Peer | undefined;
  isOpen(): boolean;
  close(): void;
}

const FIRST_RETRY_MS = 20;
const LONGEST_RETRY_MS = 500;
/** A broker that owes an answer for longer counts as hung: the connection is closed. */
const ANSWER_TIMEOUT_MS = 15_000;
const PING_MS = 5_000;

export function createBrokerLink(options: BrokerLinkOptions): BrokerLink {
  const { path, clock, onRequest, onNotification, onUp, onDown } = options;
  /** The connection on which the broker has answered. */
  let up: Peer | undefined;
  /** The newest connection. */
  let current: Peer | undefined;
  let isOpen = false;
  let socketPath = "";
  let retryMs = FIRST_RETRY_MS;
  let cancelRetry = () => {};

  /** Sends a request, and closes the connection when no answer comes in time. */
  async function ask(peer: Peer, header: object): Promise<Frame["header"] | undefined> {
    const cancel = clock.after(ANSWER_TIMEOUT_MS, peer.end);
    // A failure closes the connection, which `onEnd` handles.
    const answer = await peer.request(header).catch(() => undefined);
    cancel();
    return answer;
  }

  async function keepAlive(peer: Peer): Promise<void> {
    if (up === peer && (await ask(peer, { do: "ping" }))) clock.after(PING_MS, () => void keepAlive(peer));
  }

  async function attempt(): Promise<void> {
    const socket = connect(socketPath);
    const peer = createPeer({ socket, onRequest, onNotification, onEnd: () => onEnd(peer) });
    current = peer;
    const status = await ask(peer, { do: "hello" });
    if (!status || current !== peer) return;
    up = peer;
    retryMs = FIRST_RETRY_MS;
    onUp(peer, status);
    void keepAlive(peer);
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
      socketPath = path();
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
