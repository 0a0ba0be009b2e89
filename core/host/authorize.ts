import type { Principal } from "../contracts/authenticator.js";
import { type Authorizer, authorizer, type Verdict } from "../contracts/authorizer.js";
import type { Clock } from "../contracts/clock.js";
import { ERROR_CODES, isOpenStarryError, OpenStarryError } from "../contracts/errors.js";
import type { Denial, OperationRequest } from "../contracts/hooks.js";
import { withDeadline } from "../lib/deadline.js";
import { errorText } from "../lib/error-text.js";
import type { Hooks } from "./hooks.js";
import type { SlotRegistry } from "./slots.js";

export interface AuthorizeDeps {
  slots: Pick<SlotRegistry, "has" | "use">;
  hooks: Pick<Hooks, "onRequest">;
  clock: Pick<Clock, "after">;
  /** How long an authorizer may take to answer. */
  deadlineMs: number;
  /** Told why no authorizer answers, and `undefined` when one does again: the operator has to see it. */
  problem: (key: string, text: string | undefined) => void;
}

/** Tells whether this is a complete principal. Plugins may be plain JavaScript, whose answers no compiler has checked. */
export function isPrincipal(value: unknown): value is Principal {
  const { kind, id, agentId, runId } = Object(value) as Record<string, unknown>;
  if (typeof id !== "string") return false;
  if (kind === "agent") return typeof agentId === "string" && typeof runId === "string";
  return kind === "operator" || kind === "internal" || kind === "anonymous";
}

/** Rejects with the denial when a request may not happen. */
export async function requirePermission(request: OperationRequest, deps: AuthorizeDeps): Promise<void> {
  const denial = (await denialOfAuthorizer(request, deps)) ?? (await denialOfTaps(request, deps.hooks));
  if (!denial) return;
  const { code, detail, hint } = denial;
  throw new OpenStarryError(code, { detail, hint });
}

async function denialOfAuthorizer(
  request: OperationRequest,
  deps: AuthorizeDeps,
): Promise<Denial | undefined> {
  if (request.scope === "public") return undefined;
  const verdict = await verdictOn(request, deps);
  if (verdict) return verdict.verdict === "deny" ? verdict : undefined;
  const { kind } = request.principal;
  // A broken policy must not lock the operator out of mending it.
  if (kind === "operator" || kind === "internal") return undefined;
  return {
    code: "forbidden",
    detail: `${request.operation} was denied: the daemon has no answer of its authorizer`,
    hint: "ask the operator to look at the problems that openstarry-daemon status shows",
  };
}

/** What the authorizer decides; `undefined`, and a problem of the daemon, where it gives no verdict. */
async function verdictOn(
  request: OperationRequest,
  { slots, clock, deadlineMs, problem }: AuthorizeDeps,
): Promise<Verdict | undefined> {
  let why = "no plugin provides one";
  if (slots.has(authorizer)) {
    try {
      const verdict = await ask(slots.use(authorizer), request, clock, deadlineMs);
      if (verdict.verdict === "allow" || (verdict.verdict === "deny" && isDenial(verdict))) {
        problem("authorizer", undefined);
        return verdict;
      }
      why = `it answered ${JSON.stringify(verdict)}`;
    } catch (error) {
      why = errorText(error);
    }
  }
  problem("authorizer", `the authorizer gives no verdict, so agents are denied everything: ${why}`);
  return undefined;
}

async function ask(
  provider: Authorizer,
  request: OperationRequest,
  clock: Pick<Clock, "after">,
  deadlineMs: number,
): Promise<Verdict> {
  const answer: unknown = await withDeadline(clock, deadlineMs, `no answer within ${deadlineMs} ms`, () =>
    provider.authorize(request),
  );
  return Object(answer) as Verdict;
}

/** Tells whether a client can be shown this denial. */
function isDenial({ code, detail }: Denial): boolean {
  return Object.hasOwn(ERROR_CODES, code) && typeof detail === "string";
}

async function denialOfTaps(
  request: OperationRequest,
  hooks: Pick<Hooks, "onRequest">,
): Promise<Denial | undefined> {
  try {
    return await hooks.onRequest.promise(request);
  } catch (cause) {
    throw new OpenStarryError("forbidden", {
      detail: `authorization failed: ${isOpenStarryError(cause) ? cause.message : "a plugin failed"}`,
      hint: "the daemon's log names the plugin that failed",
      cause,
    });
  }
}
