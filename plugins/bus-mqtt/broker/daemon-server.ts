import { randomBytes } from "node:crypto";
import { chmodSync, lstatSync, renameSync, unlinkSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { dirname, join } from "node:path";
import type { BusEngine } from "../../kit/bus/bus-engine.js";
import type { Ticket } from "../../kit/bus/group.js";
import { assertReplaceable } from "../../kit/socket-path.js";
import { toldRuns } from "../daemon/run-list.js";
import type { Frame } from "../ipc/frames.js";
import { createPeer, type Peer } from "../ipc/peer.js";
import type { OpenStream } from "../ipc/stream-credit.js";
import { createStreams } from "./broker-streams.js";

export interface DaemonServerOptions {
  bus: BusEngine;
  /** What each daemon is told first, and when it changes. */
  status: () => object;
  /** The daemon drops these topics. */
  onDrop: (filter: string) => Promise<void>;
  /** These runs there are; all others are over. */
  onRuns: (live: ReadonlySet<string>) => void;
  onRunOver: (runId: string) => void;
}

export interface DaemonServer {
  listen(path: string): Promise<void>;
  /** The daemon that connected last answers. Rejects when there is none. */
  ask(question: object): Promise<Frame["header"]>;
  /** Calls back when a daemon comes. The returned function ends it. */
  onDaemon(listener: () => void): () => void;
  tellStatus(): void;
  close(): void;
}

/** Where the daemon connects: a socket of this user's own. While one daemon takes over from another there are two. */
export function createDaemonServer(options: DaemonServerOptions): DaemonServer {
  const peers = new Set<Peer>();
  const listeners = new Set<() => void>();
  let removeName = () => {};

  const server = createServer((socket) => {
    const peer = serve(socket, options, () => peers.delete(peer));
    peers.add(peer);
    for (const listener of [...listeners]) listener();
  });

  return {
    async listen(path) {
      await listen(server, path);
      const made = lstatSync(path).ino;
      removeName = () => {
        if (lstatSync(path, { throwIfNoEntry: false })?.ino === made) unlinkSync(path);
      };
    },
    async ask(question) {
      const peer = [...peers].at(-1);
      if (!peer) throw new Error("no daemon is there");
      return peer.request(question);
    },
    onDaemon(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    tellStatus() {
      for (const peer of peers) peer.note({ do: "status", ...options.status() });
    },
    close() {
      server.close();
      for (const peer of peers) peer.end();
      removeName();
    },
  };
}

function serve(socket: Socket, options: DaemonServerOptions, onEnd: () => void): Peer {
  const { bus, status, onDrop, onRuns, onRunOver } = options;
  const streams = createStreams(bus, () => peer);

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
        await bus.ack(header["ticket"] as Ticket);
        return {};
      case "nack":
        await bus.nack(header["ticket"] as Ticket, header["delayMs"] as number);
        return {};
      case "removeGroup":
        await bus.removeGroup(header["of"] as Ticket);
        return {};
      case "drop":
        await Promise.all([bus.drop(header["filter"] as string), onDrop(header["filter"] as string)]);
        return {};
      default:
        throw new Error(`nobody knows how to ${String(header["do"])}`);
    }
  }

  function onNote(frame: Frame): void {
    const { header } = frame;
    const runs = toldRuns(frame);
    if (runs) onRuns(runs);
    if (header["open"] !== undefined) streams.open(header as unknown as OpenStream);
    if (header["more"] !== undefined) streams.more(Number(header["stream"]), Number(header["more"]));
    if (header["cancel"] !== undefined) streams.cancel(Number(header["cancel"]));
    if (header["runOver"] !== undefined) onRunOver(String(header["runOver"]));
  }

  const peer: Peer = createPeer({
    socket,
    onRequest,
    onNote,
    onEnd() {
      streams.cancelAll();
      onEnd();
    },
  });
  return peer;
}

/** Under another name first, then renamed: nobody can connect before the mode is set. */
async function listen(server: Server, path: string): Promise<void> {
  await assertReplaceable(path);
  // As long as the final name at most: the path's length was checked for that.
  const beside = join(dirname(path), `.s${randomBytes(4).toString("hex")}`);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(beside, resolve);
  });
  chmodSync(beside, 0o600);
  renameSync(beside, path);
}
