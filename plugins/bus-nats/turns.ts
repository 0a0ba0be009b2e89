/** Keeps acts in the order in which they were asked for. */
export interface Turns {
  /** Begins in its order, beside others of its kind: whoever takes them keeps them in order. */
  beside<T>(act: () => Promise<T>): Promise<T>;
  /** Begins when all that was asked for before is done. What is asked for later waits for it. */
  alone<T>(act: () => Promise<T>): Promise<T>;
}

export function createTurns(): Turns {
  /** Never rejects. */
  let lastAlone: Promise<unknown> = Promise.resolve();
  let beside = new Set<Promise<unknown>>();

  return {
    beside(act) {
      const done = lastAlone.then(act);
      const all = beside;
      const settled = done
        .catch(() => {})
        .then(() => {
          all.delete(settled);
        });
      all.add(settled);
      return done;
    },
    alone(act) {
      const before = [lastAlone, ...beside];
      beside = new Set();
      const done = Promise.all(before).then(act);
      lastAlone = done.catch(() => {});
      return done;
    },
  };
}
