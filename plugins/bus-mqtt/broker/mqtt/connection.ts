import type { MessageBus } from "../../../../core/index.js";
import { ownerOf } from "../../../kit/topics.js";
import type { Guard, Identity } from "../guard.js";
import { MAX_SUBSCRIPTIONS_OF_CLIENT } from "./limits.js";
import type { Outbox } from "./outbox.js";
import type { Publisher } from "./publisher.js";
import { groupOf, parseFilter, type Sessions } from "./sessions.js";
import type { MqttStore } from "./store.js";
import { openSubscription, type Subscription } from "./subscription.js";

export interface ConnectionOptions {
  who: Identity;
  session: string;
  isClean: boolean;
  bus: MessageBus;
  guard: Guard;
  store: MqttStore;
  sessions: Sessions;
  outbox: Outbox;
  publisher: Publisher;
  /** Ends the connection. */
  abort: (error: unknown) => void;
}

/** A client that has said who it is. */
export type Connection = ReturnType<typeof createConnection>;

export function createConnection(options: ConnectionOptions) {
  const { who, session, isClean, bus, guard, store, sessions, outbox, publisher, abort } = options;
  /** By filter, as the client wrote it. */
  const subscriptions = new Map<string, Subscription>();
  /** One change of them is made after the other. */
  let turn: Promise<unknown> = Promise.resolve();
  let isReady = false;
  let isOver = false;

  function open(text: string, qos: 0 | 1): Subscription {
    const { filter, sharedGroup } = parseFilter(text) ?? { filter: text };
    const ownGroup = isClean || qos === 0 ? undefined : groupOf(session);
    const group = sharedGroup ?? ownGroup;
    return openSubscription({
      bus,
      outbox,
      filter,
      qos,
      ...(group === undefined ? {} : { group }),
      // What was sent to an agent before it first came waits for it.
      ...(filter === `agents/${who.agentId}/inbox` ? { groupAfter: "0" } : {}),
      isShared: sharedGroup !== undefined,
      retained: () => store.tables,
      onBroken: abort,
    });
  }

  const inTurn = <T>(act: () => Promise<T>): Promise<T> => {
    const done = turn.then(act);
    turn = done.catch(() => {});
    return done;
  };

  async function subscribe(text: string, qos: 0 | 1): Promise<boolean> {
    const known = subscriptions.get(text);
    if (!known && subscriptions.size >= MAX_SUBSCRIPTIONS_OF_CLIENT) return false;
    const parsed = parseFilter(text);
    if (!parsed || !(await guard.maySubscribe(who, parsed.filter))) return false;
    const isDurable = parsed.sharedGroup !== undefined || (!isClean && qos === 1);
    const goesOn = known?.isDurable === isDurable;
    if (known && !goesOn) await close([text]);
    // At the beginning they are those of the session.
    if (!isClean && isReady && !(await sessions.add(session, who.name, { filter: text, qos }))) return false;
    if (isOver) return false;
    if (goesOn) known.setQos(qos);
    else subscriptions.set(text, open(text, qos));
    return true;
  }

  async function close(texts: readonly string[]): Promise<void> {
    const ended = texts.map((text) => subscriptions.get(text)?.end());
    for (const text of texts) subscriptions.delete(text);
    if (!isClean) await sessions.remove(session, texts);
    await Promise.all(ended);
  }

  return {
    who,
    session,
    publisher,
    /** Whether it was granted. It is subscribed then, and nothing is sent before `start`. */
    subscribe: (text: string, qos: 0 | 1): Promise<boolean> => inTurn(() => subscribe(text, qos)),
    /** The client knows that it has subscribed this. */
    start: (text: string) => subscriptions.get(text)?.start(true),
    /** It is connected; subscriptions of its session go on. */
    ready(): void {
      isReady = true;
      for (const subscription of subscriptions.values()) subscription.start(false);
    },
    /** Whether it reads topics of this agent. */
    readsOf: (agentId: string): boolean =>
      [...subscriptions.keys()].some((text) => ownerOf(parseFilter(text)?.filter ?? text) === agentId),
    unsubscribe: (texts: readonly string[]): Promise<void> => inTurn(() => close(texts)),
    /** Resolves when nothing is read for it any more. */
    async end(): Promise<void> {
      isOver = true;
      outbox.close();
      await Promise.all([...subscriptions.values()].map((it) => it.end()));
      subscriptions.clear();
    },
    acked: outbox.acked,
  };
}
