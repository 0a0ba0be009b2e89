import { randomBytes } from "node:crypto";
import { chmodSync, lstatSync, renameSync, unlinkSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { dirname, join } from "node:path";
import type { ConsumeOptions } from "../../../core/index.js";
import type { BusEngine } from "../../kit/bus/bus-engine.js";
import type { DeliveryTag } from "../../kit/bus/consumer-group.js";
import { assertReplaceable } from "../../kit/socket-path.js";
import type { BrokerStatus } from "../ipc/broker-status.js";
import type { Frame } from "../ipc/frames.js";
import { readLiveRuns } from "../ipc/live-runs.js";
import { createPeer, type Peer } from "../ipc/peer.js";
import type { OpenStream } from "../ipc/stream-credit.js";
import { createStreamSenders } from "./stream-senders.js";

export interface DaemonServerOptions {
  bus: BusEngine;
  status: () => BrokerStatus;
  /** Called when the daemon drops the topics that match a filter. */
  onDrop: (filter: string) => Promise<void>;
  /** Called with all live runs: any other run is over. */
  onLiveRuns: (live: ReadonlySet<string>) => void;
  onRunOver: (runId: string) => void;
}

export interface DaemonServer {
  listen(path: string): Promise<void>;
  /** Asks the daemon that connected last. Rejects when none is connected. */
  ask(question: object): Promise<Frame["header"]>;
  /** Calls `listener` when a daemon connects. Returns a function that removes it. */
  onDaemon(listener: () => void): () => void;
  /** Sends the status to every connected daemon. */
  sendStatus(): void;
  close(): void;
}

/**
 * Creates the server on the unix socket to which the daemon connects. While a new daemon takes over from an old one,
 * two are connected.
 */
export function createDaemonServer(options: DaemonServerOptions): DaemonServer {
  const peers = new Set<Peer>();
  const listeners = new Set<() => void>();
  let removeSocket = () => {};

  const server = createServer((socket) => {
    const peer = serve(socket, options, () => peers.delete(peer));
    peers.add(peer);
    for (const listener of [...listeners]) listener();
  });

  return {
    async listen(path) {
      await listen(server, path);
      const inode = lstatSync(path).ino;
      removeSocket = () => {
        // Another broker may have replaced it.
        if (lstatSync(path, { throwIfNoEntry: false })?.ino === inode) unlinkSync(path);
      };
    },
    async ask(question) {
      const peer = [...peers].at(-1);
      if (!peer) throw new Error("no daemon is connected");
      return peer.request(question);
    },
    onDaemon(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    sendStatus() {
      for (const peer of peers) peer.notify({ do: "status", ...options.status() });
    },
    close() {
      server.close();
      for (const peer of peers) peer.end();
      removeSocket();
    },
  };
}

function serve(socket: Socket, options: DaemonServerOptions, onEnd: () => void): Peer {
  const { bus, status, onDrop, onLiveRuns, onRunOver } = options;
  const streams = createStreamSenders(bus, () => peer);

  async function onRequest({ header, payload }: Frame): Promise<object> {
    switch (header["do"]) {
      case "hello":
        return status();
      case "ping":
        return {};
      case "publish": {
        const { message, keep } = header as { message: { topic: string }; keep: boolean };
        return bus.publish({ ...message, payload }, { keep });
      }
      case "ack":
        await bus.ack(header["ticket"] as DeliveryTag);
        return {};
      case "nack":
        await bus.nack(header["ticket"] as DeliveryTag, header["delayMs"] as number);
        return {};
      case "removeGroup":
        await bus.removeGroup(header["of"] as Pick<ConsumeOptions, "filter" | "group">);
        return {};
      case "drop":
        await Promise.all([bus.drop(header["filter"] as string), onDrop(header["filter"] as string)]);
        return {};
      default:
        throw new Error(`unknown request "${String(header["do"])}"`);
    }
  }

  function onNotification(frame: Frame): void {
    const { header } = frame;
    const runs = readLiveRuns(frame);
    if (runs) onLiveRuns(runs);
    if (header["open"] !== undefined) streams.open(header as unknown as OpenStream);
    if (header["more"] !== undefined) streams.more(Number(header["stream"]), Number(header["more"]));
    if (header["cancel"] !== undefined) streams.cancel(Number(header["cancel"]));
    if (header["runOver"] !== undefined) onRunOver(String(header["runOver"]));
  }

  const peer: Peer = createPeer({
    socket,
    onRequest,
    onNotification,
    onEnd() {
      streams.cancelAll();
      onEnd();
    },
  });
  return peer;
}

/** Listens under a temporary name and renames it, so that nothing connects before the mode is set. */
async function listen(server: Server, path: string): Promise<void> {
  await assertReplaceable(path);
  // Not longer than the final name, whose path length was checked.
  const temporary = join(dirname(path), `.s${randomBytes(4).toString("hex")}`);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(temporary, resolve);
  });
  chmodSync(temporary, 0o600);
  renameSync(temporary, path);
}
