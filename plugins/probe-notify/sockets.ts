import {
  chmodSync,
  closeSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";
import { type Clock, type Logger, OpenStarryError } from "../../core/index.js";
import { ARRIVAL_SIGNAL, type Datagram, type Datagrams } from "./datagrams.js";

/** The sockets of runs: each at a path of its own, which only the agent's user can reach. */
export interface NotifySockets {
  pathOf(runId: string): string;
  /**
   * Binds the run's socket, in the place of one that an earlier daemon left there. `uid`: whose the agent
   * is. Throws where it cannot be made.
   */
  open(runId: string, uid: number, received: (datagram: Datagram) => void): void;
  /** Removes the run's socket. */
  close(runId: string): void;
  /** Lets go of all of them; the agents keep their paths. */
  release(): void;
  /** Removes what belongs to no run that lives. What cannot be removed is logged and left. */
  sweep(live: ReadonlySet<string>): void;
}

export interface NotifySocketsOptions {
  clock: Clock;
  log: Logger;
  native: Datagrams;
  /** Made when it is needed. */
  folder: string;
}

/** Longer ones do not fit into the kernel's `sockaddr_un` and would be cut off silently. */
const MAX_PATH_BYTES = 107;
/** A run's id is its socket's name. */
const RUN_ID_BYTES = 36;
/** Signals may be lost; then nobody waits longer than this. */
const LOOK_MS = 1_000;
/** So much is taken of one run within so long. Who sends more has to wait, and fills nothing but its queue. */
const MOST_IN_WINDOW = 50;
const WINDOW_MS = 100;

interface NotifySocket {
  readonly fd: number;
  readonly received: (datagram: Datagram) => void;
  /** By the monotonic clock. */
  windowEndsMs: number;
  left: number;
  /** Nothing is taken until its window is over. */
  paused: boolean;
}

export function createNotifySockets({ clock, log, native, folder }: NotifySocketsOptions): NotifySockets {
  const sockets = new Map<string, NotifySocket>();
  let stopListening: (() => void) | undefined;
  const pathOf = (runId: string) => join(folder, runId);

  /** The kernel tells by a signal that something has arrived; of several only one may come through. */
  function listen() {
    process.on(ARRIVAL_SIGNAL, takeAll);
    let cancel = () => {};
    const look = () => {
      takeAll();
      cancel = clock.after(LOOK_MS, look);
    };
    look();
    stopListening = () => {
      process.off(ARRIVAL_SIGNAL, takeAll);
      cancel();
    };
  }

  function takeAll() {
    const open = [...sockets].filter(([, { paused }]) => !paused);
    const waiting = new Set(native.waiting(open.map(([, { fd }]) => fd)));
    for (const [runId, socket] of open) if (waiting.has(socket.fd)) take(runId, socket);
  }

  function take(runId: string, socket: NotifySocket) {
    const now = clock.monotonic();
    if (now >= socket.windowEndsMs)
      Object.assign(socket, { windowEndsMs: now + WINDOW_MS, left: MOST_IN_WINDOW });
    // It may be closed by what it says.
    while (sockets.get(runId) === socket) {
      if (socket.left === 0) return pause(runId, socket);
      const datagram = native.receive(socket.fd);
      if (!datagram) return;
      socket.left -= 1;
      socket.received(datagram);
    }
  }

  function pause(runId: string, socket: NotifySocket) {
    socket.paused = true;
    clock.after(socket.windowEndsMs - clock.monotonic(), () => {
      socket.paused = false;
      take(runId, socket);
    });
  }

  function letGo(runId: string) {
    const socket = sockets.get(runId);
    if (!socket) return;
    sockets.delete(runId);
    closeSync(socket.fd);
    if (sockets.size > 0) return;
    stopListening?.();
    stopListening = undefined;
  }

  return {
    pathOf,
    open(runId, uid, received) {
      letGo(runId);
      const path = pathOf(runId);
      prepareFolder(folder, path);
      rmSync(path, { force: true });
      const fd = native.open(path);
      if (uid !== process.geteuid?.()) lchownSync(path, uid, -1);
      sockets.set(runId, { fd, received, windowEndsMs: 0, left: 0, paused: false });
      if (!stopListening) listen();
    },
    close(runId) {
      letGo(runId);
      rmSync(pathOf(runId), { force: true });
    },
    release() {
      for (const runId of [...sockets.keys()]) letGo(runId);
      removeIfEmpty(folder);
    },
    sweep(live) {
      const left = namesIn(folder).filter((runId) => !live.has(runId));
      if (left.length > 0 && !isOwnFolder(folder)) {
        return log.warn(
          { folder },
          "the folder for the sockets of agents is not the daemon's alone; it is left",
        );
      }
      for (const runId of left) {
        try {
          rmSync(pathOf(runId), { force: true });
        } catch (err) {
          log.warn({ path: pathOf(runId), err }, "what lies among the sockets of agents cannot be removed");
        }
      }
    },
  };
}

/** Whether the sockets of runs fit into a folder. */
export function hasRoom(folder: string): boolean {
  return Buffer.byteLength(folder) + 1 + RUN_ID_BYTES <= MAX_PATH_BYTES;
}

/** Others may pass through it, and no more: the agents of other users have theirs in it. */
const FOLDER_MODE = 0o711;

function prepareFolder(folder: string, path: string): void {
  // Whatever the umask is.
  if (mkdirSync(folder, { recursive: true, mode: FOLDER_MODE })) chmodSync(folder, FOLDER_MODE);
  const isOwn = isOwnFolder(folder);
  if (isOwn && Buffer.byteLength(path) <= MAX_PATH_BYTES) return;
  throw new OpenStarryError("spawn_failed", {
    detail: isOwn
      ? `${path} is too long for a socket (${MAX_PATH_BYTES} bytes at most)`
      : `${folder}, for the sockets of agents, can be changed by others than the daemon's user`,
    hint: "name another place in the option folder of probe-notify",
  });
}

/** A link that somebody else put there is not followed. */
function isOwnFolder(folder: string): boolean {
  const stats = lstatSync(folder, { throwIfNoEntry: false });
  return stats?.isDirectory() === true && stats.uid === process.geteuid?.() && (stats.mode & 0o022) === 0;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // Sockets of runs that live on are in it, or it was never made.
  }
}
