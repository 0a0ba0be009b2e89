import { type FSWatcher, statSync, watch } from "node:fs";
import type { Clock, Logger } from "../../core/index.js";

export interface FolderWatchOptions {
  folders: readonly string[];
  clock: Clock;
  log: Logger;
  /** Called once for changes that come close together. */
  onChange(): void;
}

export interface FolderWatch {
  /** Before this, `refresh` does nothing. */
  start(): void;
  /** Watches the folders that are there now; again for one that was replaced since. */
  refresh(): void;
  stop(): void;
}

/** Editors save in several steps. */
const QUIET_MS = 100;

/**
 * Tells soon when something in a folder changes. Notifications can be lost (the kernel's queue is finite,
 * and Node drops its overflow in silence): nothing may depend on them but how soon something is seen.
 */
export function createFolderWatch({ folders, clock, log, onChange }: FolderWatchOptions): FolderWatch {
  const watchers = new Map<string, { watcher: FSWatcher; inode: number }>();
  let cancel: (() => void) | undefined;
  let active = false;

  function soon(): void {
    if (!active) return;
    cancel ??= clock.after(QUIET_MS, () => {
      cancel = undefined;
      onChange();
    });
  }

  function forget(folder: string): void {
    watchers.get(folder)?.watcher.close();
    watchers.delete(folder);
  }

  function follow(folder: string): void {
    const inode = inodeOf(folder);
    // A watcher stays with the folder that it was made for, also when another has taken its name.
    if (watchers.get(folder)?.inode === inode) return;
    forget(folder);
    if (inode === undefined) return;
    try {
      const watcher = watch(folder, { persistent: false }, soon);
      watcher.on("error", () => {
        forget(folder);
        soon();
      });
      watchers.set(folder, { watcher, inode });
    } catch (error) {
      log.warn({ folder, err: error }, "this folder is not watched; a change is seen when it is used");
    }
  }

  return {
    start() {
      active = true;
    },
    refresh() {
      if (active) folders.forEach(follow);
    },
    stop() {
      active = false;
      cancel?.();
      for (const folder of [...watchers.keys()]) forget(folder);
    },
  };
}

function inodeOf(folder: string): number | undefined {
  try {
    return statSync(folder, { throwIfNoEntry: false })?.ino;
  } catch {
    // It may not be entered: there is nothing to watch.
    return undefined;
  }
}
