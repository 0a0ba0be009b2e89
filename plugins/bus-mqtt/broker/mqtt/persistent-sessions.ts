import { type Clock, ID_PATTERN, type MessageBus } from "../../../../core/index.js";
import { filter as filterSchema } from "../../../kit/topic-schemas.js";
import { MAX_SESSIONS_PER_IDENTITY } from "./limits.js";
import type { MqttStore } from "./store.js";
import type { StoredSubscription } from "./tables.js";

/** A filter as a client wrote it, in its parts. */
export interface ParsedFilter {
  filter: string;
  /** The GROUP of `$share/GROUP/FILTER`. */
  sharedGroup?: string;
}

/**
 * Parses a client's filter; returns `undefined` when it is not valid. Shared subscriptions belong to MQTT 5 (4.8.2),
 * but most brokers support them in 3.1.1 too.
 */
export function parseFilter(text: string): ParsedFilter | undefined {
  const [, sharedGroup, rest] = /^\$share\/([^/]*)\/(.*)$/s.exec(text) ?? [];
  const filter = rest ?? text;
  // Topics that begin with $, such as $SYS, do not exist on the bus.
  if (filter.startsWith("$") || !filterSchema.safeParse(filter).success) return undefined;
  if (sharedGroup === undefined) return { filter };
  return ID_PATTERN.test(sharedGroup) ? { filter, sharedGroup } : undefined;
}

/** Returns the consumer group of a session on the bus. The slash makes it a name that no client can use. */
export function groupOf(sessionId: string): string {
  return `mqtt/${sessionId}`;
}

/** The sessions that outlive their connections (CleanSession 0): their subscriptions, and the groups behind them. */
export interface PersistentSessions {
  subscriptions(sessionId: string): StoredSubscription[];
  /** Resolves with false when the identity has too many sessions, all of them in use. */
  add(sessionId: string, owner: string, subscription: StoredSubscription): Promise<boolean>;
  /** Removes the subscriptions to these filters, as far as they exist. */
  removeSubscriptions(sessionId: string, filters: readonly string[]): Promise<void>;
  remove(sessionId: string): Promise<void>;
  removeAllOf(owner: string): Promise<void>;
  /** Stores that the session was used now. */
  touch(sessionId: string): Promise<void>;
}

export interface PersistentSessionsOptions {
  bus: MessageBus;
  store: MqttStore;
  clock: Pick<Clock, "now">;
  isInUse: (sessionId: string) => boolean;
}

export function createPersistentSessions(options: PersistentSessionsOptions): PersistentSessions {
  const { bus, store, clock, isInUse } = options;
  const subscriptions = (sessionId: string) => store.tables.subscriptions(sessionId);

  async function removeGroup(sessionId: string, { filter: text, qos }: StoredSubscription): Promise<void> {
    const parsed = parseFilter(text);
    // A shared group belongs to all its members; a subscription with QoS 0 has no group.
    if (!parsed || parsed.sharedGroup !== undefined || qos === 0) return;
    await bus.removeGroup({ filter: parsed.filter, group: groupOf(sessionId) });
  }

  async function removeSubscriptions(sessionId: string, filters: readonly string[]): Promise<void> {
    const removed = subscriptions(sessionId).filter(({ filter }) => filters.includes(filter));
    if (removed.length === 0) return;
    await Promise.all(removed.map((it) => removeGroup(sessionId, it)));
    await store.write((tables) => {
      for (const { filter } of removed) tables.removeSubscription(sessionId, filter);
    });
  }

  async function remove(sessionId: string): Promise<void> {
    const removed = subscriptions(sessionId);
    if (removed.length === 0) return;
    await Promise.all(removed.map((it) => removeGroup(sessionId, it)));
    await store.write((tables) => tables.removeSession(sessionId));
  }

  async function makeRoom(sessionId: string, owner: string): Promise<boolean> {
    const others = store.tables.sessionsOf(owner).filter((it) => it !== sessionId);
    if (others.length < MAX_SESSIONS_PER_IDENTITY) return true;
    const idle = others.find((it) => !isInUse(it));
    if (idle !== undefined) await remove(idle);
    return idle !== undefined;
  }

  return {
    subscriptions,
    async add(sessionId, owner, subscription) {
      if (!(await makeRoom(sessionId, owner))) return false;
      const nowMs = clock.now();
      await store.write((tables) => tables.addSubscription(sessionId, owner, subscription, nowMs));
      return true;
    },
    removeSubscriptions,
    remove,
    async removeAllOf(owner) {
      for (const sessionId of store.tables.sessionsOf(owner)) await remove(sessionId);
    },
    async touch(sessionId) {
      if (subscriptions(sessionId).length === 0) return;
      const nowMs = clock.now();
      await store.write((tables) => tables.touch(sessionId, nowMs));
    },
  };
}
