/**
 * Messages of QoS 2 that were taken and that their publishers have not released (MQTT 3.1.1, 4.3.3): one that comes
 * again is not published again. In memory: after a crash of the broker it may be.
 */
export interface Unreleased {
  /** Settles as its publishing does; `undefined`: it is new. */
  find(session: string, packetId: number): Promise<void> | undefined;
  add(session: string, packetId: number, published: Promise<void>): void;
  release(session: string, packetId: number): void;
  forget(session: string): void;
}

/** The session that was used last is the last to be forgotten. */
export function createUnreleased(maxSessions: number): Unreleased {
  const sessions = new Map<string, Map<number, Promise<void>>>();

  function release(session: string, packetId: number): void {
    const known = sessions.get(session);
    known?.delete(packetId);
    if (known?.size === 0) sessions.delete(session);
  }

  return {
    find: (session, packetId) => sessions.get(session)?.get(packetId),
    add(session, packetId, published) {
      const known = sessions.get(session) ?? new Map<number, Promise<void>>();
      sessions.delete(session);
      sessions.set(session, known.set(packetId, published));
      const [oldest] = sessions.keys();
      if (sessions.size > maxSessions && oldest !== undefined) sessions.delete(oldest);
      published.catch(() => release(session, packetId));
    },
    release,
    forget: (session) => void sessions.delete(session),
  };
}
