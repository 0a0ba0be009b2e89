import type { Msg } from "@nats-io/transport-node";
import type { Clock } from "../../core/index.js";
import type { Session } from "./session.js";

/** The server ends a pull that got nothing for so long; then it is asked anew. */
const PULL_MS = 30_000;
/** Nothing was heard of it: it is lost. */
const SILENCE_MS = 10_000;
/** After an answer that is neither a message nor the pull's usual end. */
const PAUSE_MS = 1_000;

export interface PullsOptions {
  session: Session;
  consumer: string;
  clock: Pick<Clock, "after">;
  /** How many messages somebody waits for now. */
  wanted: () => number;
  arrive: (message: Msg) => void;
  /** The consumer is not on the server any more. */
  onGone: () => void;
}

export type Pulls = ReturnType<typeof createPulls>;

/**
 * Asks the server for the messages of one consumer: for one when somebody waits for it, and for none in
 * advance, so that nothing lies here while its time runs.
 */
export function createPulls({ session, consumer, clock, wanted, arrive, onGone }: PullsOptions) {
  const subject = `$JS.API.CONSUMER.MSG.NEXT.${consumer}`;
  const request = { batch: 1, expires: PULL_MS * 1e6 };
  let underWay = 0;

  function pull(): void {
    while (!session.isOver() && underWay < wanted()) one();
  }

  function one(): void {
    underWay += 1;
    const cancel = clock.after(PULL_MS + SILENCE_MS, () => over(pull));
    const stop = session.ask(subject, request, (answer) => over(() => read(answer)));
    const over = (then: () => void) => {
      cancel();
      stop();
      underWay -= 1;
      then();
    };
  }

  function read(answer: Msg): void {
    const { headers } = answer;
    const code = headers?.code ?? 0;
    const isGone = code === 503 || (code === 409 && /deleted/i.test(headers?.description ?? ""));
    if (code === 0) arrive(answer);
    else if (isGone) onGone();
    // Nothing came.
    else if (code === 404 || code === 408) pull();
    else clock.after(PAUSE_MS, pull);
  }

  return { session, pull };
}
