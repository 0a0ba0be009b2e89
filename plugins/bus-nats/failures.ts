import { JetStreamApiCodes, JetStreamApiError } from "@nats-io/jetstream";
import { AuthorizationError, RequestError, TimeoutError } from "@nats-io/transport-node";
import { isOpenStarryError, OpenStarryError } from "../../core/index.js";

export function unavailable(why: string, cause?: unknown): OpenStarryError {
  return new OpenStarryError("bus_unavailable", {
    detail: `the message bus (nats) cannot be used now: ${why}`,
    hint: "ask again in a moment",
    data: { retry_after_s: 1 },
    cause: cause ?? new Error(why),
  });
}

/** What went wrong, in words. Errors of the client name no credentials. */
export function wordsOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (isOpenStarryError(error) && error.code === "bus_unavailable") return wordsOf(error.cause);
  if (error.name === "JetStreamNotEnabled") {
    return "JetStream is not enabled on the server, or not for this account: start it with -js, or with a jetstream section in its config";
  }
  if (error instanceof TimeoutError) return "the server does not answer";
  if (error instanceof AuthorizationError) return "the server refuses these credentials";
  return error.message;
}

/** What is asked for is not on the server. */
export function isNoConsumer(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === JetStreamApiCodes.ConsumerNotFound;
}

export function isNoStream(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamNotFound;
}

/** A message could not be deleted: it is gone already, or something is wrong (JSStreamMsgDeleteFailedF). */
export function isNotDeleted(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === 10_057;
}

/** The server is there, and nobody on it to answer this. */
export function isUnanswered(error: unknown): boolean {
  return error instanceof RequestError && error.isNoResponders();
}
