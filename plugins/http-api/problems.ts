import type { ServerResponse } from "node:http";
import { ERROR_CODES, isOpenStarryError, OpenStarryError, toOpenStarryError } from "../../core/index.js";
import { HTTP_STATUSES } from "./statuses.js";

/** On every answer: nothing is cached, framed, sniffed, or told to other sites. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** Anything thrown on the way to an answer, fastify's own errors included. */
export function toApiError(error: unknown, bodyLimit: number): OpenStarryError {
  if (isOpenStarryError(error)) return error;
  const { code, statusCode = 500 } = error as { code?: string; statusCode?: number };
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE") {
    return new OpenStarryError("body_too_large", {
      detail: `the request body is larger than ${bodyLimit} bytes`,
      hint: "send less; hand large data over in a file",
    });
  }
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE") return mediaTypeError();
  if (statusCode >= 400 && statusCode < 500) {
    return new OpenStarryError("input_invalid", {
      detail: "the request's path, headers or body are malformed",
      hint: "GET /openapi.json says what each route takes",
      cause: error,
    });
  }
  return toOpenStarryError(error);
}

export function mediaTypeError(): OpenStarryError {
  return new OpenStarryError("media_type_unsupported", {
    detail: "the request has a body that is not declared as JSON",
    hint: "send the header 'Content-Type: application/json' and a JSON object",
  });
}

/** Writes an error as `application/problem+json` (RFC 9457) with `code` and `hint`. */
export function toProblem(error: OpenStarryError): Record<string, unknown> {
  return {
    ...error.data,
    type: `urn:openstarry:error:${error.code}`,
    title: ERROR_CODES[error.code],
    status: HTTP_STATUSES[error.code],
    code: error.code,
    detail: error.message,
    hint: error.hint,
  };
}

/** Headers that belong to an error, besides the usual ones. */
export function headersOf(error: OpenStarryError): Record<string, string> {
  const headers: Record<string, string> = { "content-type": "application/problem+json" };
  if (error.code === "unauthenticated") headers["www-authenticate"] = 'Bearer realm="openstarry-daemon"';
  const retryAfterS = error.data.retry_after_s;
  if (typeof retryAfterS === "number") headers["retry-after"] = String(retryAfterS);
  return headers;
}

/** Answers before any routing, without reading the body, and closes the connection. */
export function answerRaw(response: ServerResponse, error: OpenStarryError): void {
  const body = JSON.stringify(toProblem(error));
  response.writeHead(HTTP_STATUSES[error.code], {
    ...headersOf(error),
    connection: "close",
    "content-length": Buffer.byteLength(body),
  });
  response.end(body);
}
