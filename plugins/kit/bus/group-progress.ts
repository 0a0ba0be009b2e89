import type { ConsumerGroupId, ConsumerGroupStore } from "./storage.js";

export interface GroupProgressOptions {
  id: ConsumerGroupId;
  store: ConsumerGroupStore;
  cursor: () => number;
  /** Returns how often a message was delivered; `undefined` when it is not pending. */
  attemptOf: (offset: number) => number | undefined;
}

/** Creates the writer of one group's progress. It saves only what has changed since the last save. */
export function createGroupProgress({ id, store, cursor, attemptOf }: GroupProgressOptions) {
  let changed = new Set<number>();
  let savedCursor: number | undefined;
  let saved = Promise.resolve();

  return {
    /** Notes that a message became pending or acknowledged, or was delivered again. */
    mark: (offset: number) => void changed.add(offset),
    unsavedCount: () => changed.size,
    /** Resolves when the store has all progress up to now. */
    save(): Promise<void> {
      if (changed.size === 0 && cursor() === savedCursor) return saved;
      const offsets = changed;
      changed = new Set();
      savedCursor = cursor();
      const pending = [...offsets].map((offset) => [offset, attemptOf(offset)] as const);
      saved = store.save(id, { cursor: savedCursor, pending }).catch((error: unknown) => {
        for (const offset of offsets) changed.add(offset);
        savedCursor = undefined;
        throw error;
      });
      return saved;
    },
    /** Resolves as the save under way does, without saving anything more. */
    lastSave: () => saved,
  };
}
