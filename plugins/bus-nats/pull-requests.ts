import type { Msg } from "@nats-io/transport-node";
import type { Clock } from "../../core/index.js";
import type { Session } from "./session.js";

/** How long the server keeps a pull request without a message before it ends it. */
const PULL_MS = 30_000;
/** How long after that the request counts as lost. */
const LOST_MS = 10_000;
/** The pause after an answer that is neither a message nor the usual end. */
const RETRY_MS = 1_000;

export interface PullRequestsOptions {
  session: Session;
  consumer: string;
  clock: Pick<Clock, "after">;
  /** Returns how many messages members wait for now. */
  wanted: () => number;
  onMessage: (message: Msg) => void;
  /** Called when the consumer does not exist on the server any more. */
  onGone: () => void;
}

export type PullRequests = ReturnType<typeof createPullRequests>;

/**
 * Requests messages of one consumer: one for each waiting member and none in advance, since the time to acknowledge
 * runs from the moment the server sends a message.
 */
export function createPullRequests(options: PullRequestsOptions) {
  const { session, consumer, clock, wanted, onMessage, onGone } = options;
  const subject = `$JS.API.CONSUMER.MSG.NEXT.${consumer}`;
  const request = { batch: 1, expires: PULL_MS * 1e6 };
  let openRequests = 0;

  /** Sends as many requests as there are waiting members without one. */
  function pull(): void {
    while (!session.isOver() && openRequests < wanted()) sendOne();
  }

  function sendOne(): void {
    openRequests += 1;
    const cancel = clock.after(PULL_MS + LOST_MS, () => close(pull));
    const stop = session.request(subject, request, (answer) => close(() => onAnswer(answer)));
    const close = (then: () => void) => {
      cancel();
      stop();
      openRequests -= 1;
      then();
    };
  }

  function onAnswer(answer: Msg): void {
    const { headers } = answer;
    const code = headers?.code ?? 0;
    const isGone = code === 503 || (code === 409 && /deleted/i.test(headers?.description ?? ""));
    if (code === 0) onMessage(answer);
    else if (isGone) onGone();
    // 404, 408: the request ended without a message.
    else if (code === 404 || code === 408) pull();
    else clock.after(RETRY_MS, pull);
  }

  return { session, pull };
}
