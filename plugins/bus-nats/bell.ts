/** Wakes one who waits for something to change, also when it rang just before. It looks itself for what has. */
export function createBell() {
  let hasRung = false;
  let wake = () => {};
  return {
    ring() {
      hasRung = true;
      wake();
    },
    /** Resolves when it has rung since the last time. For one who waits at a time. */
    async rung(): Promise<void> {
      if (!hasRung) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      hasRung = false;
    },
  };
}

export type Bell = ReturnType<typeof createBell>;
