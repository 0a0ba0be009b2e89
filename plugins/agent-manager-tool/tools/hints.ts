import { type ErrorCode, isOpenStarryError, OpenStarryError } from "../../../core/contracts/errors.js";
import { nearest } from "../../../core/lib/nearest.js";
import type { Client } from "../client/client.js";
import { statusOf } from "./answers.js";
import { cutMiddle } from "./shorten.js";
import { isEnded } from "./summary.js";
import { inToolWords } from "./tool-words.js";

/** What a model is told of a failure. */
export interface ToolError {
  code: string;
  /** What happened. */
  detail: string;
  /** What to do next. */
  hint: string;
  /** The same call may succeed later. */
  retryable: boolean;
  retry_after_s?: number;
}

export interface Attempt {
  client: () => Client;
  input: Readonly<Record<string, unknown>>;
  signal?: AbortSignal;
}

const RETRY_AFTER_S: Partial<Record<ErrorCode, number>> = {
  daemon_not_running: 5,
  daemon_stopping: 5,
  journal_unavailable: 10,
  agent_is_deleted: 1,
  timeout: 1,
  rate_limited: 60,
  quota_exceeded: 30,
};

/** What the client itself refuses before it sends anything. */
const NOT_SENT: readonly ErrorCode[] = ["input_invalid", "unauthenticated", "body_too_large"];

/** Whether the request may have been carried out: no answer came, or a failure of the daemon. */
export function isOutcomeUnknown(error: unknown): boolean {
  if (!isOpenStarryError(error)) return true;
  const status = statusOf(error);
  return status === undefined ? !NOT_SENT.includes(error.code) : status >= 500;
}

/** Turns whatever was thrown into what a model can act on, in the tools' own words. */
export async function explain(thrown: unknown, attempt: Attempt): Promise<ToolError> {
  const error = asKnown(thrown);
  // Asking for more to help with is itself something that may fail; then the daemon's hint has to do.
  const better = await betterHint(error, attempt).catch(() => undefined);
  const seconds = error.data["retry_after_s"] ?? RETRY_AFTER_S[error.code];
  const hint = better ?? error.hint ?? "look with agent_status and agent_why, or at your own with agent_list";
  return {
    code: error.code,
    detail: inToolWords(error.message),
    hint: inToolWords(hint),
    retryable: RETRY_AFTER_S[error.code] !== undefined,
    ...(typeof seconds === "number" ? { retry_after_s: seconds } : {}),
  };
}

/** An error whose texts are short enough for an answer of `maxBytes`. */
export function fitError(error: ToolError, maxBytes: number): ToolError {
  const plain = (text: string) => text.replace(/[\p{Cc}\p{Cs}]+/gu, " ");
  const full = { ...error, detail: plain(error.detail), hint: plain(error.hint) };
  for (let chars = maxBytes; ; chars = Math.floor(chars * 0.8)) {
    const cut = { ...full, detail: cutMiddle(full.detail, chars / 2), hint: cutMiddle(full.hint, chars) };
    if (chars < 100 || Buffer.byteLength(JSON.stringify({ ok: false, error: cut })) <= maxBytes) return cut;
  }
}

function asKnown(thrown: unknown): OpenStarryError {
  if (isOpenStarryError(thrown)) return thrown;
  if ((thrown as { name?: unknown } | undefined)?.name === "AbortError") {
    return new OpenStarryError("timeout", {
      detail: "the call was given up before it was done",
      hint: "look with agent_status what became of it",
    });
  }
  return new OpenStarryError("internal", {
    detail: `the tool itself failed: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
    hint: "try something else, and report this",
  });
}

async function betterHint(error: OpenStarryError, attempt: Attempt): Promise<string | undefined> {
  const { input } = attempt;
  const agentId = String(input["agent_id"] ?? "");
  switch (error.code) {
    case "template_not_found":
      return templateHint(String(input["template_id"] ?? ""), attempt);
    case "agent_exists":
      return existsHint(agentId, attempt);
    case "agent_not_found":
    case "forbidden":
      return strangerHint(error, idsOf(input), attempt);
    case "result_not_found":
      return resultHint(agentId, attempt);
    case "params_invalid":
      return `${error.hint ?? "agent_templates tells what it takes"}; call agent_start again with all of these in params`;
    case "daemon_not_running":
      return `agents go on running without the daemon: wait, then make the same call again; if it stays away: ${error.hint ?? "start it"}`;
    case "daemon_stopping":
      return "the daemon is going down or being replaced: wait, then make the same call again";
    case "timeout":
      return error.hint?.includes("agent_")
        ? undefined
        : "look with agent_status how far it is, then call again";
    default:
      return undefined;
  }
}

async function templateHint(wanted: string, { client, signal }: Attempt): Promise<string> {
  const { items } = await client().templates.list(signal ? { signal } : {});
  const ids = items.map((it) => it.template_id);
  const guess = nearest(wanted, ids);
  const known = ids.length ? `the templates are: ${ids.join(", ")}` : "there are no templates at all";
  return `${guess ? `did you mean "${guess}"? ` : ""}${known}; agent_templates tells what each takes`;
}

async function existsHint(agentId: string, { client, signal }: Attempt): Promise<string> {
  const another = `for a second one choose another agent_id, such as "${nextId(agentId)}"`;
  const agent = await client()
    .agents.get(agentId, signal ? { signal } : {})
    .catch(() => undefined);
  if (!agent) return `it is not yours to use: choose another agent_id, such as "${nextId(agentId)}"`;
  if (!isEnded(agent.state)) {
    return `it is ${agent.state}: use it as it is with agent_status, agent_wait and agent_result; ${another}`;
  }
  return (
    `it has ended (${agent.state}): read what it left with agent_result, run it again with agent_restart, ` +
    `or free its id with agent_stop and remove: true; ${another}`
  );
}

/** Whom the caller may have meant: only ids that it may see. */
async function strangerHint(
  error: OpenStarryError,
  asked: readonly string[],
  { client, signal }: Attempt,
): Promise<string | undefined> {
  if (asked.length === 0) return undefined;
  const { items } = await client().agents.list({ limit: 200 }, signal ? { signal } : {});
  const ids = items.map((it) => it.agent_id);
  const unknown = asked.find((id) => !ids.includes(id));
  const guess = unknown === undefined ? undefined : nearest(unknown, ids);
  if (guess) return `did you mean "${guess}"? agent_list shows the agents that you may see`;
  if (error.code === "forbidden") return undefined;
  return ids.length
    ? `the agents that you may see are: ${ids.join(", ")}`
    : "there are no agents; agent_start makes one";
}

async function resultHint(agentId: string, { client, signal }: Attempt): Promise<string> {
  const agent = await client().agents.get(agentId, signal ? { signal } : {});
  if (!isEnded(agent.state)) return `it is ${agent.state}: wait for its end with agent_wait, then ask again`;
  return agent.last_exit?.success
    ? "it ended well and left nothing; agent_logs shows what it printed"
    : "it did not end well; agent_why and agent_logs tell what happened, agent_restart runs it again";
}

function idsOf(input: Readonly<Record<string, unknown>>): string[] {
  const { agent_id: one, agent_ids: many } = input;
  return [...(typeof one === "string" ? [one] : []), ...(Array.isArray(many) ? (many as string[]) : [])];
}

/** `worker` → `worker_2` → `worker_3`. */
function nextId(agentId: string): string {
  const [, base = agentId, count] = /^(.*?)_(\d{1,6})$/.exec(agentId) ?? [];
  return `${base.slice(0, 55)}_${Number(count ?? 1) + 1}`;
}
