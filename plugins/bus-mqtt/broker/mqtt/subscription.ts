import type { BusDelivery, BusMessage, MessageBus } from "../../../../core/index.js";
import { topicMatches } from "../../../kit/topics.js";
import { ACK_WAIT_MS, SHARED_WINDOW, WINDOW } from "./limits.js";
import type { Outbox } from "./outbox.js";
import type { MqttTables } from "./tables.js";

export interface SubscriptionOptions {
  bus: MessageBus;
  outbox: Outbox;
  /** Without the `$share/GROUP/` before it. */
  filter: string;
  /** The most that messages are sent with. */
  qos: 0 | 1;
  /** The group that knows what is still to be delivered. Absent: what comes, and nothing of what came before. */
  group?: string;
  /** Where that begins when it is new. Absent: with what comes. */
  groupAfter?: string;
  /** The group's members are many clients, and each message is for one of them. */
  isShared?: boolean;
  retained: () => MqttTables;
  /** The bus cannot be read. */
  onBroken: (error: unknown) => void;
}

/** One filter of one connection. It is subscribed when this returns. */
export interface Subscription {
  readonly isDurable: boolean;
  /** The client asks for it again, perhaps with another QoS. */
  setQos(qos: 0 | 1): void;
  /** From now on it is sent what comes; what is retained first, or once more, where that is asked for. */
  start(withRetained: boolean): void;
  /** Resolves when nothing is read any more, and what was not acknowledged may go to others. */
  end(): Promise<void>;
}

/**
 * Reads from the bus at the client's pace. A message that is kept goes out with QoS 1, one that is not with QoS 0,
 * and none with more than the subscription's.
 */
export function openSubscription(options: SubscriptionOptions): Subscription {
  const { bus, outbox, filter, group, groupAfter, isShared = false, retained, onBroken } = options;
  const over = new AbortController();
  const { signal } = over;
  const window = createWindow(WINDOW);
  let { qos } = options;
  let isStarted = false;
  let go = (_withRetained: boolean) => {};
  const started = new Promise<boolean>((resolve) => {
    go = resolve;
  });

  const sendOne = async (message: BusMessage) => {
    const isAcked = message.position !== undefined && qos === 1;
    if (isAcked) await window.enter();
    await outbox.send({ ...message, qos: isAcked ? 1 : 0 }, window.leave);
  };
  const sendPassing = async (message: BusMessage) => {
    if (message.position === undefined) await sendOne(message);
  };
  const sendDelivery = async ({ message, attempt, ack }: BusDelivery) => {
    const settle = () => void ack().catch(onBroken);
    const sentWith = qos;
    const isSent = await outbox.send(
      { ...message, qos: sentWith, dup: sentWith === 1 && attempt > 1 },
      settle,
    );
    if (isSent && sentWith === 0) settle();
  };
  const showRetained = async () => {
    const topics = retained()
      .retainedTopics()
      .filter((topic) => topicMatches(filter, topic));
    for (const topic of topics) {
      const message = signal.aborted ? undefined : retained().retained(topic);
      if (!message) continue;
      const isAcked = Math.min(message.qos, qos) === 1;
      if (isAcked) await window.enter();
      await outbox.send({ ...message, qos: isAcked ? 1 : 0, retain: true }, window.leave);
    }
  };

  let isShowing = false;
  let isAskedAgain = false;
  /** However often it is asked for meanwhile, it is shown once more after that. */
  const sendRetained = async (): Promise<void> => {
    isAskedAgain = true;
    if (isShowing) return;
    isShowing = true;
    try {
      while (isAskedAgain && !signal.aborted) {
        isAskedAgain = false;
        await showRetained();
      }
    } finally {
      isShowing = false;
    }
  };

  /** The first `next()` subscribes, so it is called at once. */
  const run = async <T>(
    open: () => AsyncIterable<T>,
    send: (item: T) => Promise<void>,
    before?: () => Promise<void>,
  ): Promise<void> => {
    for (let isFirst = true; !signal.aborted; isFirst = false) {
      const items = open()[Symbol.asyncIterator]();
      const first = items.next();
      first.catch(() => {}); // told when it is its turn
      try {
        if ((await started) && isFirst) await before?.();
        for (let it = await first; !it.done && !signal.aborted; it = await items.next()) await send(it.value);
        // Without being asked to the bus ends what it reads of a group that it forgets: that begins anew.
      } catch (error) {
        if (!signal.aborted) onBroken(error);
        return;
      } finally {
        await items.return?.();
      }
    }
  };
  const consumed = () => {
    const maxInFlight = isShared ? SHARED_WINDOW : WINDOW;
    const how = { filter, group: group ?? "", ackWaitMs: ACK_WAIT_MS, maxInFlight, signal };
    const after = groupAfter === undefined ? {} : { after: groupAfter };
    return run(() => bus.consume({ ...how, ...after }), sendDelivery);
  };
  const read = (send: (message: BusMessage) => Promise<void>) =>
    run(() => bus.subscribe({ filter, signal }), send, sendRetained);

  const runs = [
    ...(group === undefined ? [read(sendOne)] : [consumed()]),
    // Groups get what is kept.
    ...(group === undefined || isShared ? [] : [read(sendPassing)]),
  ];
  return {
    isDurable: group !== undefined,
    setQos(wanted) {
      qos = wanted;
    },
    start(withRetained) {
      if (isStarted && withRetained) sendRetained().catch(onBroken);
      isStarted = true;
      go(withRetained);
    },
    async end() {
      over.abort();
      window.close();
      go(false);
      await Promise.all(runs);
    },
  };
}

/** Lets in so many at a time. */
function createWindow(size: number) {
  let inside = 0;
  let isClosed = false;
  let waiting: (() => void)[] = [];
  const ring = () => {
    const all = waiting;
    waiting = [];
    for (const wake of all) wake();
  };
  return {
    async enter() {
      while (inside >= size && !isClosed) await new Promise<void>((resolve) => waiting.push(resolve));
      inside += 1;
    },
    leave() {
      inside -= 1;
      ring();
    },
    close() {
      isClosed = true;
      ring();
    },
  };
}
