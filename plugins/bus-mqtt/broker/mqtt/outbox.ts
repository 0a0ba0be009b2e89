import type { Duplex } from "node:stream";

export interface Outgoing {
  topic: string;
  payload: Uint8Array;
  qos: 0 | 1;
  retain?: boolean;
  /** It may have been sent before. */
  dup?: boolean;
}

/** What is sent to one client, as fast as it reads. */
export interface Outbox {
  /**
   * Resolves with true when it was handed to the socket, which is done only when that has room, and with false
   * when the connection is over. `onAcked` is called when a message of QoS 1 is acknowledged, and never when the
   * client goes before.
   */
  send(message: Outgoing, onAcked?: () => void): Promise<boolean>;
  /** The client has acknowledged the message of this packet identifier. */
  acked(packetId: number): void;
  close(): void;
}

export function createOutbox(socket: Duplex): Outbox {
  const unacked = new Map<number, () => void>();
  let lastId = 0;
  let isOver = false;
  let isCorked = false;
  let room: Promise<void> | undefined;
  let wake = () => {};

  const ring = () => {
    room = undefined;
    wake();
  };
  const hasRoom = () => {
    room ??= new Promise((resolve) => {
      wake = resolve;
      socket.once("drain", ring);
    });
    return room;
  };
  /** What is sent in one turn goes out together: a call of the system for each message would cost most of it. */
  const flushLater = () => {
    if (isCorked) return;
    isCorked = true;
    socket.cork();
    setImmediate(() => {
      isCorked = false;
      socket.uncork();
    });
  };
  const nextId = () => {
    do lastId = (lastId % 0xffff) + 1;
    while (unacked.has(lastId));
    return lastId;
  };

  return {
    async send(message, onAcked) {
      while (socket.writableNeedDrain && !isOver) await hasRoom();
      if (isOver) return false;
      const packetId = message.qos === 1 ? nextId() : undefined;
      if (packetId !== undefined) unacked.set(packetId, onAcked ?? (() => {}));
      flushLater();
      socket.write(encodePublish(message, packetId));
      return true;
    },
    acked(packetId) {
      const settle = unacked.get(packetId);
      unacked.delete(packetId);
      settle?.();
    },
    close() {
      isOver = true;
      unacked.clear();
      ring();
    },
  };
}

/** A PUBLISH packet (MQTT 3.1.1, 3.3). With a packet identifier it is one of QoS 1. */
export function encodePublish(message: Outgoing, packetId: number | undefined): Buffer {
  const { topic, payload, retain = false, dup = false } = message;
  const topicBytes = Buffer.byteLength(topic);
  const idBytes = packetId === undefined ? 0 : 2;
  const length = encodeLength(2 + topicBytes + idBytes + payload.byteLength);
  const packet = Buffer.allocUnsafe(1 + length.length + 2 + topicBytes + idBytes + payload.byteLength);
  let at = packet.writeUInt8(0x30 | (dup ? 8 : 0) | (idBytes > 0 ? 2 : 0) | (retain ? 1 : 0), 0);
  for (const byte of length) at = packet.writeUInt8(byte, at);
  at = packet.writeUInt16BE(topicBytes, at);
  at += packet.write(topic, at);
  if (packetId !== undefined) at = packet.writeUInt16BE(packetId, at);
  packet.set(payload, at);
  return packet;
}

/** Seven bits a byte, the lowest first; the eighth says that more follow (2.2.3). */
function encodeLength(length: number): number[] {
  const bytes: number[] = [];
  for (let left = length; ; left >>= 7) {
    if (left < 0x80) return [...bytes, left];
    bytes.push((left & 0x7f) | 0x80);
  }
}
