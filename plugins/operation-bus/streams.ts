import type { AgentLookup, BusDelivery, BusMessage, Principal, StreamItem } from "../../core/index.js";
import { ownerOf } from "../kit/topics.js";
import type { Deliveries } from "./deliveries.js";
import { viewOf } from "./message-view.js";

/** Messages as events, their position as id. */
export async function* messages(
  source: AsyncIterable<BusMessage>,
  isStillAllowed: () => boolean,
): AsyncGenerator<StreamItem> {
  for await (const message of source) {
    if (!isStillAllowed()) return;
    yield itemOf(message);
  }
}

/** What a member of a group gets, as events with a token each. Without ids: the group knows where it stands. */
export async function* deliveries(
  source: AsyncIterable<BusDelivery>,
  tokens: ReturnType<Deliveries["ofStream"]>,
  isStillAllowed: () => boolean,
): AsyncGenerator<StreamItem> {
  try {
    for await (const delivery of source) {
      if (!isStillAllowed()) return;
      const { message, attempt } = delivery;
      yield { event: "message", data: { ...viewOf(message), ack: tokens.add(delivery), attempt } };
    }
  } finally {
    tokens.end();
  }
}

/** Asked for its first item at once, so that it is subscribed when this returns. */
export function begun<T>(source: AsyncGenerator<T>): AsyncIterable<T> {
  let first: Promise<IteratorResult<T>> | undefined = source.next();
  // Told to the one who reads it.
  first.catch(() => {});
  const iterator = {
    next() {
      const next = first ?? source.next();
      first = undefined;
      return next;
    },
    return: () => source.return(undefined),
  };
  return { [Symbol.asyncIterator]: () => iterator };
}

/**
 * Whether a reader may go on: not when the agent whose topics it reads was deleted and there is another one
 * of its id, which may be somebody else's.
 */
export function isStillAllowed(
  filter: string,
  { kind }: Principal,
  agents: Pick<AgentLookup, "get">,
): () => boolean {
  const owner = kind === "agent" ? ownerOf(filter) : undefined;
  if (owner === undefined) return () => true;
  const born = agents.get(owner)?.created_at;
  return () => [born, undefined].includes(agents.get(owner)?.created_at);
}

function itemOf(message: BusMessage): StreamItem {
  const { position: id } = message;
  return { ...(id === undefined ? {} : { id }), event: "message", data: viewOf(message) };
}
