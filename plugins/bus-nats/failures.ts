import { JetStreamApiCodes, JetStreamApiError } from "@nats-io/jetstream";
import { AuthorizationError, RequestError, TimeoutError } from "@nats-io/transport-node";
import { isOpenStarryError, OpenStarryError } from "../../core/index.js";

export function unavailable(why: string, cause?: unknown): OpenStarryError {
  return new OpenStarryError("bus_unavailable", {
    detail: `cannot use the message bus (nats) now: ${why}`,
    hint: "try again in a moment",
    data: { retry_after_s: 1 },
    cause: cause ?? new Error(why),
  });
}

/** Returns the message of an error, in plainer words where the client's are terse. It contains no credentials. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (isOpenStarryError(error) && error.code === "bus_unavailable") return errorText(error.cause);
  if (error.name === "JetStreamNotEnabled") {
    return "JetStream is not enabled on the server, or not for this account: start it with -js, or add a jetstream section to its config";
  }
  if (error instanceof TimeoutError) return "the server does not answer";
  if (error instanceof AuthorizationError) return "the server rejects these credentials";
  return error.message;
}

export function isConsumerNotFound(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === JetStreamApiCodes.ConsumerNotFound;
}

export function isStreamNotFound(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamNotFound;
}

/** Returns whether a message could not be deleted (JSStreamMsgDeleteFailedF): it is gone already, or an error. */
export function isDeleteFailed(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === 10_057;
}

/** Returns whether the server has no responder for a request: the stream or delivery does not exist any more. */
export function isNoResponders(error: unknown): boolean {
  return error instanceof RequestError && error.isNoResponders();
}
