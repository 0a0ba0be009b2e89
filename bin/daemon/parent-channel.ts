import { Socket } from "node:net";
import { createInterface } from "node:readline";

/** What a process that starts a daemon hands to it, as JSON in this variable. */
export const HANDED_OVER = "OPENSTARRY_HANDED_OVER";

export interface HandedOver {
  /** A socket to the starter, one JSON message a line each way. */
  channel_fd: number;
  /** Listening sockets of the predecessor, by the names under which they were offered. */
  sockets?: Record<string, number>;
  /** A predecessor is still there: say `prepared` and wait for `go`. */
  successor?: boolean;
  /** Standard error is not the log: who looks after the daemon reads along there. */
  foreground?: boolean;
}

/** What a daemon tells its starter. */
export type DaemonMessage =
  | { prepared: true }
  | { ready: ReadyReport }
  /** A problem document; the daemon ends. */
  | { error: Record<string, unknown> };

/** What `start` prints. Wire form of the one line that says that a daemon is ready. */
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

/** Takes the variable out of the environment, so that no agent ever sees it. */
export function takeHandedOver(env: NodeJS.ProcessEnv): HandedOver | undefined {
  const text = env[HANDED_OVER];
  delete env[HANDED_OVER];
  return text === undefined ? undefined : (JSON.parse(text) as HandedOver);
}

/** What a predecessor says: take over now; the service manager takes you for the daemon now. */
export type PredecessorWord = "go" | "main";

/** The daemon's side of the channel. Everything is safe to call when nobody listens any more. */
export interface ParentChannel {
  send(message: DaemonMessage): Promise<void>;
  /** Resolves true when the predecessor says that next; false when it is gone without it. */
  hear(word: PredecessorWord): Promise<boolean>;
  close(): void;
}

export function openParentChannel(fd: number): ParentChannel {
  const socket = new Socket({ fd, readable: true, writable: true });
  // The starter may have been interrupted; that is no reason to end.
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
