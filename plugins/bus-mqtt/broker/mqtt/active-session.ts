import type { MessageBus } from "../../../../core/index.js";
import { ownerOf } from "../../../kit/topics.js";
import type { Identity } from "../../ipc/identity.js";
import type { Authorizer } from "../authorizer.js";
import { MAX_SUBSCRIPTIONS_PER_CLIENT } from "./limits.js";
import type { Outbox } from "./outbox.js";
import { groupOf, type PersistentSessions, parseFilter } from "./persistent-sessions.js";
import type { Publisher } from "./publisher.js";
import type { MqttStore } from "./store.js";
import { openSubscription, type Subscription } from "./subscription.js";

export interface ActiveSessionOptions {
  who: Identity;
  id: string;
  /** Whether the session ends with its connection (CleanSession). */
  isClean: boolean;
  bus: MessageBus;
  authorizer: Authorizer;
  store: MqttStore;
  sessions: PersistentSessions;
  outbox: Outbox;
  publisher: Publisher;
  /** Closes the connection. */
  abort: (error: unknown) => void;
}

export type ActiveSession = ReturnType<typeof createActiveSession>;

/** Creates the session of a connected client: who it is, and its subscriptions. */
export function createActiveSession(options: ActiveSessionOptions) {
  const { who, id, isClean, bus, authorizer, store, sessions, outbox, publisher, abort } = options;
  /** By filter, as the client wrote it. */
  const subscriptions = new Map<string, Subscription>();
  /** Subscriptions are changed one after the other. */
  let lastChange: Promise<unknown> = Promise.resolve();
  let isReady = false;
  let isOver = false;

  function open(text: string, qos: 0 | 1): Subscription {
    const { filter, sharedGroup } = parseFilter(text) ?? { filter: text };
    const sessionGroup = isClean || qos === 0 ? undefined : groupOf(id);
    return openSubscription({
      bus,
      outbox,
      filter,
      qos,
      group: sharedGroup ?? sessionGroup,
      // An agent's inbox holds what was sent to it before it first connected.
      groupAfter: filter === `agents/${who.agentId}/inbox` ? "0" : undefined,
      isShared: sharedGroup !== undefined,
      retained: () => store.tables,
      onBroken: abort,
    });
  }

  const inOrder = <T>(act: () => Promise<T>): Promise<T> => {
    const done = lastChange.then(act);
    lastChange = done.catch(() => {});
    return done;
  };

  async function subscribe(text: string, qos: 0 | 1): Promise<boolean> {
    const known = subscriptions.get(text);
    if (!known && subscriptions.size >= MAX_SUBSCRIPTIONS_PER_CLIENT) return false;
    const parsed = parseFilter(text);
    if (!parsed || !(await authorizer.maySubscribe(who, parsed.filter))) return false;
    const isDurable = parsed.sharedGroup !== undefined || (!isClean && qos === 1);
    const canContinue = known?.isDurable === isDurable;
    if (known && !canContinue) await close([text]);
    // Before the client is ready, the subscriptions are those that the persistent session has already.
    if (!isClean && isReady && !(await sessions.add(id, who.name, { filter: text, qos }))) return false;
    if (isOver) return false;
    if (canContinue) known.setQos(qos);
    else subscriptions.set(text, open(text, qos));
    return true;
  }

  async function close(texts: readonly string[]): Promise<void> {
    const ended = texts.map((text) => subscriptions.get(text)?.end());
    for (const text of texts) subscriptions.delete(text);
    if (!isClean) await sessions.removeSubscriptions(id, texts);
    await Promise.all(ended);
  }

  return {
    who,
    id,
    publisher,
    /** Resolves with whether the subscription was granted. It exists then, but sends nothing before `start`. */
    subscribe: (text: string, qos: 0 | 1): Promise<boolean> => inOrder(() => subscribe(text, qos)),
    /** Starts sending on a subscription, after its SUBACK. */
    start: (text: string) => subscriptions.get(text)?.start(true),
    /** Starts sending on the subscriptions of the persistent session, after CONNACK. */
    ready(): void {
      isReady = true;
      for (const subscription of subscriptions.values()) subscription.start(false);
    },
    /** Returns whether the client has subscribed to topics of this agent. */
    readsTopicsOf: (agentId: string): boolean =>
      [...subscriptions.keys()].some((text) => ownerOf(parseFilter(text)?.filter ?? text) === agentId),
    unsubscribe: (texts: readonly string[]): Promise<void> => inOrder(() => close(texts)),
    /** Ends all subscriptions. Resolves when nothing reads from the bus for this client any more. */
    async end(): Promise<void> {
      isOver = true;
      outbox.close();
      await Promise.all([...subscriptions.values()].map((it) => it.end()));
      subscriptions.clear();
    },
    acked: outbox.acked,
  };
}
