import { existsSync, type FSWatcher, watch } from "node:fs";
import type { Clock } from "../../../core/index.js";
import { isAlive } from "../tree/identity.js";
import type { Tree } from "../tree/tree.js";
import type { ProcessTarget } from "./target.js";

export interface ExitWatchOptions {
  target: ProcessTarget;
  /** Its `led` becomes true once the agent's process was seen alive. */
  tree: Tree;
  statusFile: string;
  clock: Clock;
  /** Resolves when the shim has exited; absent for an adopted run, whose shim is not a child of the daemon. */
  shimExit?: Promise<void> | undefined;
  /** Called when the process cannot be checked. It is checked again later. */
  onError(error: unknown): void;
}

/** Watches for the exit of the agent's own process. */
export interface ExitWatch {
  /** Resolves when the process has exited. */
  readonly exited: Promise<void>;
  /** Returns whether the process has exited; false while that cannot be checked. */
  isOver(): boolean;
  close(): void;
}

/** How often the process is checked when no event announces its exit, since its shim is gone. */
const LOOK_MS = 500;
/** How often it is checked otherwise: events can be lost, and a shim can be stopped. */
const RECHECK_MS = 5_000;

/** Watches by the exit of the shim or a change of the status file, and by regular checks. Call `start` once. */
export function createExitWatch(options: ExitWatchOptions): ExitWatch & { start(): void } {
  const { target, tree, statusFile, clock, shimExit } = options;
  let watcher: FSWatcher | undefined;
  let cancelLook = () => {};
  let isClosed = false;
  let resolveExited: () => void = () => {};
  const exited = new Promise<void>((resolve) => {
    resolveExited = resolve;
  });

  function isOver(): boolean {
    try {
      const alive = isAlive(target);
      tree.led ||= alive;
      return !alive;
    } catch (error) {
      options.onError(error);
      return false;
    }
  }

  function look(): void {
    if (isClosed) return;
    if (isOver()) {
      watcher?.close();
      cancelLook();
      resolveExited();
      return;
    }
    cancelLook();
    cancelLook = clock.after(isAnnounced() ? RECHECK_MS : LOOK_MS, look);
  }

  function isAnnounced(): boolean {
    try {
      const hasEvent = shimExit !== undefined || watcher !== undefined;
      return hasEvent && target.shim !== undefined && isAlive(target.shim);
    } catch {
      return false;
    }
  }

  return {
    exited,
    isOver,
    start() {
      // The shim's exit is only a hint: it may have been killed while the agent lives.
      if (shimExit !== undefined) void shimExit.then(look);
      else watcher = watchFile(statusFile, look);
      look();
    },
    close() {
      isClosed = true;
      watcher?.close();
      cancelLook();
    },
  };
}

function watchFile(path: string, changed: () => void): FSWatcher | undefined {
  if (!existsSync(path)) return undefined;
  try {
    const watcher = watch(path, { persistent: false }, changed);
    watcher.on("error", () => watcher.close());
    return watcher;
  } catch {
    // No inotify watches left: the regular check notices the exit as well, later.
    return undefined;
  }
}
