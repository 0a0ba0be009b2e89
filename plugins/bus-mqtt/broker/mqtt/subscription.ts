import type { BusDelivery, BusMessage, MessageBus } from "../../../../core/index.js";
import { topicMatches } from "../../../kit/topics.js";
import { ACK_WAIT_MS, SHARED_WINDOW, WINDOW } from "./limits.js";
import type { Outbox } from "./outbox.js";
import type { MqttTables } from "./tables.js";

export interface SubscriptionOptions {
  bus: MessageBus;
  outbox: Outbox;
  /** The filter, without the prefix `$share/GROUP/`. */
  filter: string;
  /** The highest QoS with which messages are sent. */
  qos: 0 | 1;
  /** The consumer group to read as. Absent: the subscription gets new messages only. */
  group?: string | undefined;
  /** The position where a new group starts. Absent: with new messages. */
  groupAfter?: string | undefined;
  /** Whether the group's members are different clients, of which one gets each message. */
  isShared?: boolean;
  retained: () => MqttTables;
  /** Called when the bus cannot be read. */
  onBroken: (error: unknown) => void;
}

/** One filter of one connection. */
export interface Subscription {
  readonly isDurable: boolean;
  /** Sets the QoS, when the client subscribes to the filter again. */
  setQos(qos: 0 | 1): void;
  /** Starts sending. With `withRetained`, sends the retained messages first; again if it has started already. */
  start(withRetained: boolean): void;
  /** Resolves when nothing is read any more, and unacknowledged messages are free for other members. */
  end(): Promise<void>;
}

/**
 * Subscribes to the bus at once, and reads from it at the client's pace. Kept messages are sent with QoS 1 and others
 * with QoS 0, but none with more than the subscription's QoS.
 */
export function openSubscription(options: SubscriptionOptions): Subscription {
  const { bus, outbox, filter, group, groupAfter, isShared = false, onBroken } = options;
  const over = new AbortController();
  const { signal } = over;
  const window = createWindow(WINDOW);
  let { qos } = options;
  let isStarted = false;
  let resolveStarted = (_withRetained: boolean) => {};
  const started = new Promise<boolean>((resolve) => {
    resolveStarted = resolve;
  });
  const sendRetained = createRetainedSender({ ...options, window, signal, qosOf: () => qos });

  const sendMessage = async (message: BusMessage) => {
    const needsAck = message.position !== undefined && qos === 1;
    if (needsAck) await window.enter();
    await outbox.send({ ...message, qos: needsAck ? 1 : 0 }, window.leave);
  };
  const sendTransient = async (message: BusMessage) => {
    if (message.position === undefined) await sendMessage(message);
  };
  const sendDelivery = async ({ message, attempt, ack }: BusDelivery) => {
    const acknowledge = () => void ack().catch(onBroken);
    const sentQos = qos;
    const isSent = await outbox.send(
      { ...message, qos: sentQos, dup: sentQos === 1 && attempt > 1 },
      acknowledge,
    );
    // A client acknowledges nothing of QoS 0.
    if (isSent && sentQos === 0) acknowledge();
  };

  /** Reads until the subscription ends. Calls `next()` at once, since that subscribes; sends after `start`. */
  const run = async <T>(
    open: () => AsyncIterable<T>,
    send: (item: T) => Promise<void>,
    beforeFirst?: () => Promise<void>,
  ): Promise<void> => {
    // The iterator ends without being asked when the bus removes the group: then a new group is opened.
    for (let isFirst = true; !signal.aborted; isFirst = false) {
      const items = open()[Symbol.asyncIterator]();
      const first = items.next();
      first.catch(() => {}); // handled below, where it is awaited
      try {
        if ((await started) && isFirst) await beforeFirst?.();
        for (let it = await first; !it.done && !signal.aborted; it = await items.next()) await send(it.value);
      } catch (error) {
        if (!signal.aborted) onBroken(error);
        return;
      } finally {
        await items.return?.();
      }
    }
  };
  const consume = (name: string) => {
    const maxInFlight = isShared ? SHARED_WINDOW : WINDOW;
    const member = { filter, group: name, after: groupAfter, ackWaitMs: ACK_WAIT_MS, maxInFlight, signal };
    return run(() => bus.consume(member), sendDelivery);
  };
  const subscribe = (send: (message: BusMessage) => Promise<void>) =>
    run(() => bus.subscribe({ filter, signal }), send, sendRetained);

  const runs = [group === undefined ? subscribe(sendMessage) : consume(group)];
  // Groups deliver kept messages only.
  if (group !== undefined && !isShared) runs.push(subscribe(sendTransient));
  return {
    isDurable: group !== undefined,
    setQos(next) {
      qos = next;
    },
    start(withRetained) {
      if (isStarted && withRetained) sendRetained().catch(onBroken);
      isStarted = true;
      resolveStarted(withRetained);
    },
    async end() {
      over.abort();
      window.close();
      resolveStarted(false);
      await Promise.all(runs);
    },
  };
}

interface RetainedSenderOptions extends Pick<SubscriptionOptions, "filter" | "outbox" | "retained"> {
  window: SendWindow;
  signal: AbortSignal;
  qosOf: () => 0 | 1;
}

/** Returns a function that sends the retained messages. Calls while it runs lead to one more round, however many. */
function createRetainedSender({ filter, outbox, retained, window, signal, qosOf }: RetainedSenderOptions) {
  let isSending = false;
  let isRequested = false;

  async function sendAll(): Promise<void> {
    const topics = retained()
      .retainedTopics()
      .filter((topic) => topicMatches(filter, topic));
    for (const topic of topics) {
      const message = signal.aborted ? undefined : retained().retained(topic);
      if (!message) continue;
      const needsAck = Math.min(message.qos, qosOf()) === 1;
      if (needsAck) await window.enter();
      await outbox.send({ ...message, qos: needsAck ? 1 : 0, retain: true }, window.leave);
    }
  }

  return async (): Promise<void> => {
    isRequested = true;
    if (isSending) return;
    isSending = true;
    try {
      while (isRequested && !signal.aborted) {
        isRequested = false;
        await sendAll();
      }
    } finally {
      isSending = false;
    }
  };
}

type SendWindow = ReturnType<typeof createWindow>;

/** Creates the in-flight window: `enter` waits while `size` messages are unacknowledged. */
function createWindow(size: number) {
  let inFlight = 0;
  let isClosed = false;
  let waiting: (() => void)[] = [];
  const wakeAll = () => {
    const all = waiting;
    waiting = [];
    for (const wake of all) wake();
  };
  return {
    async enter() {
      while (inFlight >= size && !isClosed) await new Promise<void>((resolve) => waiting.push(resolve));
      inFlight += 1;
    },
    leave() {
      inFlight -= 1;
      wakeAll();
    },
    close() {
      isClosed = true;
      wakeAll();
    },
  };
}
