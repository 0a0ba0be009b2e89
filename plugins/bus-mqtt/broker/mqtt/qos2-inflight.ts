/**
 * The QoS 2 messages that were published and not released by their clients yet (MQTT 3.1.1, 4.3.3), so that a
 * repetition is not published again. In memory only: after a crash of the broker a repetition is published again.
 * Packet ids of another run of the same session are new, since that run knows nothing of the earlier one.
 */
export interface Qos2Inflight {
  /** Returns the promise of the message's `publish`; `undefined` when the message is new. */
  find(sender: Sender, packetId: number): Promise<void> | undefined;
  add(sender: Sender, packetId: number, published: Promise<void>): void;
  release(sessionId: string, packetId: number): void;
  clear(sessionId: string): void;
}

interface Sender {
  sessionId: string;
  runId: string | undefined;
}

interface Inflight {
  runId: string | undefined;
  packets: Map<number, Promise<void>>;
}

/** Creates an empty set. Above its limits it forgets the least recently used session, or that with most messages. */
export function createQos2Inflight(maxSessions: number, maxMessages: number): Qos2Inflight {
  /** The least recently used comes first. */
  const sessions = new Map<string, Inflight>();
  let count = 0;

  function clear(sessionId: string): void {
    count -= sessions.get(sessionId)?.packets.size ?? 0;
    sessions.delete(sessionId);
  }

  function release(sessionId: string, packetId: number): void {
    const known = sessions.get(sessionId);
    if (known?.packets.delete(packetId)) count -= 1;
    if (known?.packets.size === 0) sessions.delete(sessionId);
  }

  function inflightOf({ sessionId, runId }: Sender): Inflight | undefined {
    const known = sessions.get(sessionId);
    return known?.runId === runId ? known : undefined;
  }

  function evict(): void {
    const [oldest] = sessions.keys();
    if (sessions.size > maxSessions && oldest !== undefined) clear(oldest);
    if (count <= maxMessages) return;
    // The session with most messages, so that no other client pays for it.
    const [largest] = [...sessions].sort(([, a], [, b]) => b.packets.size - a.packets.size);
    if (largest) clear(largest[0]);
  }

  return {
    find: (sender, packetId) => inflightOf(sender)?.packets.get(packetId),
    add(sender, packetId, published) {
      const { sessionId, runId } = sender;
      const known = inflightOf(sender) ?? { runId, packets: new Map<number, Promise<void>>() };
      clear(sessionId);
      known.packets.set(packetId, published);
      sessions.set(sessionId, known);
      count += known.packets.size;
      evict();
      published.catch(() => release(sessionId, packetId));
    },
    release,
    clear,
  };
}
