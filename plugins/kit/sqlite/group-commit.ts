export interface GroupCommit<B, R> {
  /** Resolves with what `write` answered for this batch, once the batch is as durable as it asks to be. */
  add(batch: B): Promise<R>;
  /** Writes what waits now, before anything else happens; resolves when all of it is settled. */
  flush(): Promise<void>;
}

export interface GroupCommitOptions<B, R> {
  /** Writes all of what it is given, or throws and has written nothing. */
  write: (batches: readonly B[]) => R[];
  /** Resolves when everything written so far outlives a loss of power. */
  sync: () => Promise<void>;
  needsSync: (batch: B) => boolean;
}

interface Waiting<B, R> {
  batch: B;
  resolve: (result: R) => void;
  reject: (error: unknown) => void;
}

/**
 * Writes batches that are added in the same turn of the event loop with one call, so that they share
 * one sync of the disk. The sync itself happens beside the event loop: a process that is being made can
 * come up meanwhile. Batches settle in the order in which they were written. After a group failed each
 * batch is tried alone, so that none fails because of another.
 */
export function createGroupCommit<B, R>(options: GroupCommitOptions<B, R>): GroupCommit<B, R> {
  const { write, sync, needsSync } = options;
  let waiting: Waiting<B, R>[] = [];
  /** Settles when all earlier groups have; absent when they have. */
  let earlier: Promise<void> | undefined;

  const flush = (): Promise<void> => {
    const group = waiting;
    waiting = [];
    if (group.length > 0) writeGroup(group);
    return earlier ?? Promise.resolve();
  };

  const writeGroup = (group: Waiting<B, R>[]) => {
    try {
      settle(group, write(group.map((entry) => entry.batch)));
    } catch (error) {
      if (group.length === 1) group[0]?.reject(error);
      else for (const entry of group) writeGroup([entry]);
    }
  };

  const settle = (group: Waiting<B, R>[], results: R[]) => {
    const resolve = () => {
      for (const [index, entry] of group.entries()) entry.resolve(results[index] as R);
    };
    const synced = group.some(({ batch }) => needsSync(batch)) ? sync() : undefined;
    if (!synced && !earlier) {
      resolve();
      return;
    }
    const mine = settleInTurn(group, resolve, earlier, synced).finally(() => {
      if (earlier === mine) earlier = undefined;
    });
    earlier = mine;
  };

  const settleInTurn = async (
    group: Waiting<B, R>[],
    resolve: () => void,
    before: Promise<void> | undefined,
    synced: Promise<void> | undefined,
  ): Promise<void> => {
    const failure = await synced?.then(
      () => undefined,
      (error: unknown) => ({ error }),
    );
    await before;
    if (failure) for (const { batch, reject } of group) if (needsSync(batch)) reject(failure.error);
    // For those that were rejected it comes too late and does nothing.
    resolve();
  };

  return {
    add(batch) {
      return new Promise((resolve, reject) => {
        waiting.push({ batch, resolve, reject });
        if (waiting.length === 1) setImmediate(() => void flush());
      });
    },
    flush,
  };
}
