import { type Clock, ID_PATTERN, type MessageBus } from "../../../../core/index.js";
import { filter as filterSchema } from "../../../kit/topic-schemas.js";
import { MAX_SESSIONS_OF_ONE } from "./limits.js";
import type { MqttStore } from "./store.js";
import type { StoredSubscription } from "./tables.js";

/** A filter as a client wrote it. */
export interface ParsedFilter {
  filter: string;
  /** Of `$share/GROUP/FILTER`. */
  sharedGroup?: string;
}

/**
 * `undefined`: it is none. Shared subscriptions are of MQTT 5 (4.8.2), and known to most brokers under 3.1.1 too.
 */
export function parseFilter(text: string): ParsedFilter | undefined {
  const [, sharedGroup, rest] = /^\$share\/([^/]*)\/(.*)$/s.exec(text) ?? [];
  const filter = rest ?? text;
  // What begins with $ is no topic of the bus, such as $SYS.
  if (filter.startsWith("$") || !filterSchema.safeParse(filter).success) return undefined;
  if (sharedGroup === undefined) return { filter };
  return ID_PATTERN.test(sharedGroup) ? { filter, sharedGroup } : undefined;
}

/** The group in which the bus keeps what one session is still to get. Nobody else can name it. */
export function groupOf(session: string): string {
  return `mqtt/${session}`;
}

/** Sessions that outlive their connections: what they have subscribed, and the groups behind it. */
export interface Sessions {
  subscriptions(session: string): StoredSubscription[];
  /** False: the session would be one too many, and all others are in use. */
  add(session: string, owner: string, subscription: StoredSubscription): Promise<boolean>;
  /** Those of these filters that there are. */
  remove(session: string, filters: readonly string[]): Promise<void>;
  forget(session: string): Promise<void>;
  forgetAllOf(owner: string): Promise<void>;
  touch(session: string): Promise<void>;
}

export interface SessionsOptions {
  bus: MessageBus;
  store: MqttStore;
  clock: Pick<Clock, "now">;
  isInUse: (session: string) => boolean;
}

export function createSessions({ bus, store, clock, isInUse }: SessionsOptions): Sessions {
  const subscriptions = (session: string) => store.tables.subscriptions(session);

  async function removeGroup(session: string, { filter: text, qos }: StoredSubscription): Promise<void> {
    const parsed = parseFilter(text);
    if (!parsed || parsed.sharedGroup !== undefined || qos === 0) return;
    await bus.removeGroup({ filter: parsed.filter, group: groupOf(session) });
  }

  async function remove(session: string, filters: readonly string[]): Promise<void> {
    const gone = subscriptions(session).filter(({ filter }) => filters.includes(filter));
    if (gone.length === 0) return;
    await Promise.all(gone.map((it) => removeGroup(session, it)));
    await store.write((tables) => {
      for (const { filter } of gone) tables.removeSubscription(session, filter);
    });
  }

  async function forget(session: string): Promise<void> {
    const gone = subscriptions(session);
    if (gone.length === 0) return;
    await Promise.all(gone.map((it) => removeGroup(session, it)));
    await store.write((tables) => tables.removeSession(session));
  }

  async function makeRoom(session: string, owner: string): Promise<boolean> {
    const others = store.tables.sessionsOf(owner).filter((it) => it !== session);
    if (others.length < MAX_SESSIONS_OF_ONE) return true;
    const idle = others.find((it) => !isInUse(it));
    if (idle !== undefined) await forget(idle);
    return idle !== undefined;
  }

  return {
    subscriptions,
    async add(session, owner, subscription) {
      if (!(await makeRoom(session, owner))) return false;
      const nowMs = clock.now();
      await store.write((tables) => tables.addSubscription(session, owner, subscription, nowMs));
      return true;
    },
    remove,
    forget,
    async forgetAllOf(owner) {
      for (const session of store.tables.sessionsOf(owner)) await forget(session);
    },
    async touch(session) {
      if (subscriptions(session).length === 0) return;
      const nowMs = clock.now();
      await store.write((tables) => tables.touch(session, nowMs));
    },
  };
}
