import type { Duplex } from "node:stream";

export interface Outgoing {
  topic: string;
  payload: Uint8Array;
  qos: 0 | 1;
  retain?: boolean;
  /** Whether the message may have been sent before. */
  dup?: boolean;
}

/** Sends messages to one client, as fast as it reads. */
export interface Outbox {
  /**
   * Resolves with true when the message was written to the socket, which waits until the socket has room, and with
   * false when the connection is closed. Calls `onAcked` when the client acknowledges a message of QoS 1; never when
   * it disconnects before.
   */
  send(message: Outgoing, onAcked?: () => void): Promise<boolean>;
  /** Handles the PUBACK with this packet id. */
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

  const onDrain = () => {
    room = undefined;
    wake();
  };
  const waitForRoom = () => {
    room ??= new Promise((resolve) => {
      wake = resolve;
      socket.once("drain", onDrain);
    });
    return room;
  };
  /** Writes the messages of one turn of the event loop together: a system call each would be most of the cost. */
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
      while (socket.writableNeedDrain && !isOver) await waitForRoom();
      if (isOver) return false;
      const packetId = message.qos === 1 ? nextId() : undefined;
      if (packetId !== undefined) unacked.set(packetId, onAcked ?? (() => {}));
      flushLater();
      socket.write(encodePublish(message, packetId));
      return true;
    },
    acked(packetId) {
      const onAcked = unacked.get(packetId);
      unacked.delete(packetId);
      onAcked?.();
    },
    close() {
      isOver = true;
      unacked.clear();
      onDrain();
    },
  };
}

/** Encodes a PUBLISH packet (MQTT 3.1.1, 3.3): of QoS 1 with a packet id, else of QoS 0. */
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

/** Encodes a Remaining Length: seven bits per byte, the lowest first; the eighth bit says that more follow (2.2.3). */
function encodeLength(length: number): number[] {
  const bytes: number[] = [];
  for (let left = length; ; left >>= 7) {
    if (left < 0x80) return [...bytes, left];
    bytes.push((left & 0x7f) | 0x80);
  }
}
