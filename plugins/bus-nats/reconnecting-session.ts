import type { Clock, Logger } from "../../core/index.js";
import { errorText, unavailable } from "./failures.js";
import type { Session } from "./session.js";

/** The pause between two attempts to connect: twice as long each time. */
const MIN_RETRY_MS = 250;
const MAX_RETRY_MS = 5_000;

const STOPPED = "the bus is stopped";

export interface ReconnectingSessionOptions {
  open: (onLost: (why: string) => void) => Promise<Session>;
  /** The server's name in messages. */
  address: string;
  /** Says why the server does not run yet. While it does, nothing is tried; call `connect` when it runs. */
  whyNotYet: () => string | undefined;
  clock: Pick<Clock, "after">;
  log: Logger;
  /** Called with the problem when the connection is lost or an attempt fails, and with `undefined` when it is open. */
  onChange: (problem: string | undefined) => void;
}

/** Keeps one session open: opens a new one when it ends, until that succeeds. */
export function createReconnectingSession(options: ReconnectingSessionOptions) {
  const { open, address, whyNotYet, clock, log, onChange } = options;
  let session: Session | undefined;
  let problem: string | undefined = "not connected yet";
  let isStopped = false;
  let attempt: Promise<void> | undefined;
  let retryMs = MIN_RETRY_MS;
  let cancelRetry = () => {};

  function setProblem(next: string | undefined): void {
    if (problem === next) return;
    problem = next;
    onChange(next);
  }

  function onLost(why: string): void {
    session = undefined;
    if (isStopped) return;
    setProblem(`${address}: ${why}`);
    retry();
  }

  function retry(): void {
    cancelRetry();
    if (isStopped) return;
    cancelRetry = clock.after(retryMs, () => void connect());
    retryMs = Math.min(2 * retryMs, MAX_RETRY_MS);
  }

  async function tryOnce(): Promise<void> {
    try {
      const opened = await open(onLost);
      if (isStopped) return await opened.close();
      if (opened.isOver()) return retry();
      session = opened;
      retryMs = MIN_RETRY_MS;
      log.info({ server: address }, "connected to the NATS server");
      setProblem(undefined);
    } catch (err) {
      setProblem(`${address}: ${errorText(err)}`);
      retry();
    }
  }

  /** Tries to connect, once at a time. Resolves when the attempt is over, successful or not. */
  async function connect(): Promise<void> {
    if (session || isStopped || whyNotYet() !== undefined) return;
    attempt ??= tryOnce().finally(() => {
      attempt = undefined;
    });
    await attempt;
  }

  return {
    connect,
    problem: () => (isStopped ? STOPPED : problem),
    /** Returns the open session. Throws `bus_unavailable` when there is none. */
    current(): Session {
      if (session && !session.isOver()) return session;
      throw unavailable(isStopped ? STOPPED : (whyNotYet() ?? problem ?? "lost the connection"));
    },
    async stop(): Promise<void> {
      isStopped = true;
      cancelRetry();
      // Does not wait for an attempt under way, which may take longer than the stop may.
      await session?.close();
      session = undefined;
    },
  };
}
