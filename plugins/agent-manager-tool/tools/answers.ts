import type { IncomingHttpHeaders } from "node:http";
import {
  ERROR_CODES,
  type ErrorCode,
  type ErrorText,
  OpenStarryError,
} from "../../../core/contracts/errors.js";

/** What an answer of the daemon says went wrong. `status`: of the HTTP answer. */
class AnsweredError extends OpenStarryError {
  constructor(
    code: ErrorCode,
    readonly status: number,
    text: ErrorText,
  ) {
    super(code, text);
  }
}

/** Answers the HTTP status that an error came with; `undefined` for an error that no answer brought. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof AnsweredError ? error.status : undefined;
}

/** What stands in a problem document besides the daemon's own data. */
const PROBLEM_FIELDS = new Set(["type", "title", "status", "code", "detail", "hint", "instance"]);

/** Rebuilds the error that the daemon answered from its problem document. */
export function errorFromAnswer(status: number, headers: IncomingHttpHeaders, text: string): OpenStarryError {
  const problem = parseObject(text);
  const retryAfter = Number(headers["retry-after"] ?? Number.NaN);
  const later = Number.isFinite(retryAfter) ? { retry_after_s: retryAfter } : {};
  return errorFromProblem({ ...later, ...problem }, status, text);
}

/** The same of a problem that came as an event of a stream. */
export function errorFromProblem(
  problem: Record<string, unknown>,
  answered = 500,
  text = "",
): OpenStarryError {
  const status = Number(problem["status"] ?? answered);
  const data = Object.fromEntries(Object.entries(problem).filter(([name]) => !PROBLEM_FIELDS.has(name)));
  const code = problem["code"];
  if (typeof code === "string" && Object.hasOwn(ERROR_CODES, code)) {
    return new AnsweredError(code as ErrorCode, status, {
      detail: String(problem["detail"] ?? ERROR_CODES[code as ErrorCode]),
      hint: typeof problem["hint"] === "string" ? problem["hint"] : undefined,
      data,
    });
  }
  const said = typeof problem["detail"] === "string" ? problem["detail"] : text.slice(0, 200);
  return new AnsweredError(codeOfStatus(status), status, {
    detail: `the daemon answered ${status}${said ? `: ${said}` : ""}`,
    hint: "the answer is not one of this version's; check that client and daemon are of one version",
    data: { ...data, status },
  });
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? { ...value } : {};
  } catch {
    // An answer that is not a problem document; its text is shown instead.
    return {};
  }
}

function codeOfStatus(status: number): ErrorCode {
  if (status === 401) return "unauthenticated";
  if (status === 403) return "forbidden";
  if (status === 404) return "not_found";
  if (status === 429) return "rate_limited";
  if (status === 503) return "daemon_stopping";
  return status < 500 ? "input_invalid" : "internal";
}
