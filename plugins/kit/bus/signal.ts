/**
 * Creates a signal that wakes a task when something has changed. It carries no data: the task that wakes up checks
 * the state itself. A notification that comes while nothing waits ends the next wait at once.
 */
export function createSignal() {
  let isNotified = false;
  let wake = () => {};
  return {
    notify(): void {
      isNotified = true;
      wake();
    },
    /** Resolves when the signal was notified since the last wait. Only one task may wait at a time. */
    async wait(): Promise<void> {
      if (!isNotified) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      isNotified = false;
    },
  };
}

export type Signal = ReturnType<typeof createSignal>;
