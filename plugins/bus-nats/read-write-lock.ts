/** A lock that grants access in the order of the requests. */
export interface ReadWriteLock {
  /** Starts `act` when all earlier exclusive ones are done. Other shared ones run at the same time. */
  shared<T>(act: () => Promise<T>): Promise<T>;
  /** Starts `act` when everything requested before is done. Whatever is requested later waits for it. */
  exclusive<T>(act: () => Promise<T>): Promise<T>;
}

export function createReadWriteLock(): ReadWriteLock {
  /** Never rejects. */
  let lastExclusive: Promise<unknown> = Promise.resolve();
  /** The shared ones since then. */
  let running = new Set<Promise<unknown>>();

  return {
    shared(act) {
      const done = lastExclusive.then(act);
      const group = running;
      const settled = done
        .catch(() => {})
        .then(() => {
          group.delete(settled);
        });
      group.add(settled);
      return done;
    },
    exclusive(act) {
      const before = [lastExclusive, ...running];
      running = new Set();
      const done = Promise.all(before).then(act);
      lastExclusive = done.catch(() => {});
      return done;
    },
  };
}
