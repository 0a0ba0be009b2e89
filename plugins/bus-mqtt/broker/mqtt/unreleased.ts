/**
 * Messages of QoS 2 that were taken and that their publishers have not released (MQTT 3.1.1, 4.3.3): one that comes
 * again is not published again. In memory: after a crash of the broker it may be. What another run of the same
 * session has not released, this one does not know of: its packets are new.
 */
export interface Unreleased {
  /** Settles as its publishing does; `undefined`: it is new. */
  find(from: Run, packetId: number): Promise<void> | undefined;
  add(from: Run, packetId: number, published: Promise<void>): void;
  release(session: string, packetId: number): void;
  forget(session: string): void;
}

/** Who uses a session. */
interface Run {
  session: string;
  runId: string | undefined;
}

interface Taken {
  runId: string | undefined;
  packets: Map<number, Promise<void>>;
}

/** The session that was used last is the last to be forgotten. Of too many messages those of one session go. */
export function createUnreleased(maxSessions: number, maxMessages: number): Unreleased {
  const sessions = new Map<string, Taken>();
  let count = 0;

  function forget(session: string): void {
    count -= sessions.get(session)?.packets.size ?? 0;
    sessions.delete(session);
  }

  function release(session: string, packetId: number): void {
    const known = sessions.get(session);
    if (known?.packets.delete(packetId)) count -= 1;
    if (known?.packets.size === 0) sessions.delete(session);
  }

  function taken({ session, runId }: Run): Taken | undefined {
    const known = sessions.get(session);
    return known?.runId === runId ? known : undefined;
  }

  function makeRoom(): void {
    const [oldest] = sessions.keys();
    if (sessions.size > maxSessions && oldest !== undefined) forget(oldest);
    if (count <= maxMessages) return;
    // The one that has most of them, so that nobody pays for another.
    const [largest] = [...sessions].sort(([, a], [, b]) => b.packets.size - a.packets.size);
    if (largest) forget(largest[0]);
  }

  return {
    find: (from, packetId) => taken(from)?.packets.get(packetId),
    add(from, packetId, published) {
      const { session, runId } = from;
      const known = taken(from) ?? { runId, packets: new Map<number, Promise<void>>() };
      forget(session);
      known.packets.set(packetId, published);
      sessions.set(session, known);
      count += known.packets.size;
      makeRoom();
      published.catch(() => release(session, packetId));
    },
    release,
    forget,
  };
}
