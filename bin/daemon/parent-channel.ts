import { Socket } from "node:net";
import { createInterface } from "node:readline";

/** The variable in which the process that starts a daemon hands it a `HandedOver` as JSON. */
export const HANDED_OVER = "OPENSTARRY_HANDED_OVER";

export interface HandedOver {
  /** A socket to the starter: one JSON message per line in each direction. */
  channel_fd: number;
  /** Listening sockets of the predecessor, by the names they were offered under. */
  sockets?: Record<string, number>;
  /** A predecessor is still running: send `prepared` and wait for `go`. */
  successor?: boolean;
  /** Standard error is not the log: the daemon also logs there, for people. */
  foreground?: boolean;
}

/** A message from a daemon to its starter. */
export type DaemonMessage =
  | { prepared: true }
  | { ready: ReadyReport }
  /** A problem document; the daemon ends. */
  | { error: Record<string, unknown> };

/** What `start` prints: the message that a daemon is ready. */
export interface ReadyReport {
  pid: number;
  home: string;
  version: string;
  url?: string;
  socket?: string;
  config?: string;
  agents: { agent_id: string; state: string; pid?: number; reason?: string }[];
  problems: string[];
  /** What works and should be written otherwise. */
  notices: readonly string[];
}

/** Removes the variable from the environment, so that no agent sees it. */
export function takeHandedOver(env: NodeJS.ProcessEnv): HandedOver | undefined {
  const text = env[HANDED_OVER];
  delete env[HANDED_OVER];
  return text === undefined ? undefined : (JSON.parse(text) as HandedOver);
}

/** A message from a predecessor. `go`: take over now; `main`: the service manager now considers you the daemon. */
export type PredecessorWord = "go" | "main";

/** The daemon's side of the channel. All methods are safe to call after the other side has closed it. */
export interface ParentChannel {
  send(message: DaemonMessage): Promise<void>;
  /** Resolves with whether the next message of the predecessor is this one; false if it exits first. */
  hear(word: PredecessorWord): Promise<boolean>;
  close(): void;
}

export function openParentChannel(fd: number): ParentChannel {
  const socket = new Socket({ fd, readable: true, writable: true });
  // The starter may have been interrupted; the daemon keeps running.
  socket.on("error", () => {});
  let lines: AsyncIterator<string> | undefined;
  return {
    send: (message) =>
      new Promise((resolve) => {
        if (socket.destroyed) resolve();
        else socket.write(`${JSON.stringify(message)}\n`, () => resolve());
      }),
    async hear(word) {
      lines ??= createInterface({ input: socket })[Symbol.asyncIterator]();
      return (await lines.next()).value === word;
    },
    close: () => void socket.destroy(),
  };
}
