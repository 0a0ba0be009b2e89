import type { Clock, Logger } from "../../core/index.js";
import { unavailable, wordsOf } from "./failures.js";
import type { Session } from "./session.js";

/** Between one attempt to connect and the next: twice as long each time. */
const MIN_RETRY_MS = 250;
const MAX_RETRY_MS = 5_000;

export interface LinkOptions {
  open: (onLost: (why: string) => void) => Promise<Session>;
  /** The server, as it is called in messages. */
  where: string;
  /** Why there is nothing to connect to yet: then `tryNow` is told when there is. */
  notYet: () => string | undefined;
  clock: Pick<Clock, "after">;
  log: Logger;
  /** Told when it is there again, and with words when it is not any more. */
  onChange: (problem: string | undefined) => void;
}

/** Keeps one session open: a new one whenever there is none and the server can be reached. */
export function createLink({ open, where, notYet, clock, log, onChange }: LinkOptions) {
  let session: Session | undefined;
  let problem: string | undefined = "it is not connected yet";
  let isStopped = false;
  let attempt: Promise<void> | undefined;
  let retryMs = MIN_RETRY_MS;
  let cancelRetry = () => {};

  function tell(next: string | undefined): void {
    if (problem === next) return;
    problem = next;
    onChange(next);
  }

  function lost(why: string): void {
    session = undefined;
    if (isStopped) return;
    tell(`${where}: ${why}`);
    retry();
  }

  function retry(): void {
    cancelRetry();
    if (isStopped) return;
    cancelRetry = clock.after(retryMs, () => void tryNow());
    retryMs = Math.min(2 * retryMs, MAX_RETRY_MS);
  }

  async function connect(): Promise<void> {
    try {
      const opened = await open(lost);
      if (isStopped) return await opened.close();
      if (opened.isOver()) return retry();
      session = opened;
      retryMs = MIN_RETRY_MS;
      log.info({ server: where }, "connected to the NATS server");
      tell(undefined);
    } catch (err) {
      tell(`${where}: ${wordsOf(err)}`);
      retry();
    }
  }

  /** One attempt at a time; resolves when it is over, whatever came of it. */
  async function tryNow(): Promise<void> {
    if (session || isStopped || notYet() !== undefined) return;
    attempt ??= connect().finally(() => {
      attempt = undefined;
    });
    await attempt;
  }

  return {
    tryNow,
    problem: () => (isStopped ? "it is stopped" : problem),
    /** Throws `bus_unavailable` when there is none. */
    session(): Session {
      if (session && !session.isOver()) return session;
      throw unavailable(isStopped ? "it is stopped" : (notYet() ?? problem ?? "the connection was lost"));
    },
    async stop(): Promise<void> {
      isStopped = true;
      cancelRetry();
      // An attempt that is under way ends by itself: it may take longer than there is time.
      await session?.close();
      session = undefined;
    },
  };
}
