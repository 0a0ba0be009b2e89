export interface GroupCommit<B, R> {
  /** Resolves with what `write` answered for this batch once its group is written. */
  add(batch: B): Promise<R>;
  /** Writes what waits now, before anything else happens. */
  flush(): void;
}

interface Waiting<B, R> {
  batch: B;
  resolve: (result: R) => void;
  reject: (error: unknown) => void;
}

/**
 * Writes batches that are added in the same turn of the event loop with one call, so that they share
 * one sync of the disk. What the turn still has to do comes first: a process that is being made can
 * come up while its record is synced. `write` writes all of what it is
 * given or throws and has written nothing; after a group failed each batch is tried alone, so that
 * none fails because of another.
 */
export function createGroupCommit<B, R>(write: (batches: readonly B[]) => R[]): GroupCommit<B, R> {
  let waiting: Waiting<B, R>[] = [];

  const flush = () => {
    const group = waiting;
    waiting = [];
    if (group.length === 0) return;
    try {
      const results = write(group.map((entry) => entry.batch));
      group.forEach((entry, index) => {
        entry.resolve(results[index] as R);
      });
    } catch (error) {
      if (group.length === 1) group[0]?.reject(error);
      else for (const entry of group) writeAlone(entry);
    }
  };

  const writeAlone = (entry: Waiting<B, R>) => {
    try {
      entry.resolve(write([entry.batch])[0] as R);
    } catch (error) {
      entry.reject(error);
    }
  };

  return {
    add(batch) {
      return new Promise((resolve, reject) => {
        waiting.push({ batch, resolve, reject });
        if (waiting.length === 1) setImmediate(flush);
      });
    },
    flush,
  };
}
