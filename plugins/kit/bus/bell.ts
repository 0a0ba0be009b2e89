/** Wakes those who wait for something to change. Whoever wakes looks for itself what has. */
export function createBell() {
  let ring = () => {};
  return {
    ring: () => ring(),
    /** Resolves at the next ring. For one who waits at a time. */
    rung: () =>
      new Promise<void>((resolve) => {
        ring = resolve;
      }),
  };
}

export type Bell = ReturnType<typeof createBell>;
