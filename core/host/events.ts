import type { DaemonEvent, EventListeners } from "../contracts/events.js";

/** Hands journaled events to those who listen. One per kernel. */
export interface EventHub {
  /** Calls every listener, in the order in which they came. */
  publish(events: readonly DaemonEvent[]): void;
  /** The listeners of one plugin: they end with it, and what they throw is reported to `onFault`. */
  listenersOf(plugin: { isStopped: () => boolean; onFault: (error: unknown) => void }): EventListeners;
}

export function createEventHub(): EventHub {
  const listeners = new Set<(event: DaemonEvent) => void>();
  return {
    publish(events) {
      for (const event of events) for (const listener of listeners) listener(event);
    },
    listenersOf({ isStopped, onFault }) {
      const onAny: EventListeners["onAny"] = (listener) => {
        const guarded = (event: DaemonEvent) => {
          if (isStopped()) return void listeners.delete(guarded);
          try {
            listener(event);
          } catch (error) {
            onFault(error);
          }
        };
        listeners.add(guarded);
        return () => void listeners.delete(guarded);
      };
      return {
        onAny,
        on: (type, listener) =>
          onAny((event) => {
            if (event.type === type) listener(event as Parameters<typeof listener>[0]);
          }),
      };
    },
  };
}
